"""What does a training step take, what does an error take, and does memory grow with the iterations of the solver?

    python benchmarks/training.py --data FRAMES --peer PYTHON --run RUN --mace-log LOG

- step: time of one step on a batch of molecules, and structures a second, of this project's networks and of MACE at two
  sizes on the same frames (extended XYZ with energies and forces), one thread, in turn; PYTHON is the interpreter of an
  environment with mace-torch (see speed.py in README.md);
- error: CPU time until the forces of the validation frames are as good as a level, of a run of this project (its
  folder RUN) and of one of `mace_run_train` on the same frames with batches of as many molecules (its output LOG): the
  epochs that each took, times the steps of an epoch, times the step's time of the part above;
- memory: peak memory of a loss of energy and forces with its gradient in the weights against the number of iterations
  of the solver, beside back-propagation through the unrolled iterations.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase.build import bulk
from ase.io import write
from common import (
    REPOSITORY,
    RESULTS,
    figure,
    machine,
    markdown_machine,
    markdown_table,
    rotated,
    single_thread_environment,
    write_results,
)
from speed_worker import peak_mib, resident_mib
from training_worker import MACE, OURS

from ase_andersonn.inputs.graph import Graph, graph_from_atoms
from ase_andersonn.models.deq_attention import DEQAttention, DEQAttentionConfig
from ase_andersonn.models.derivatives import evaluate, forces_from
from ase_andersonn.nn.deq import apply_cell
from ase_andersonn.solvers.picard import Picard
from ase_andersonn.training.frames import read_file

WORKER = Path(__file__).resolve().with_name("training_worker.py")
PARTS = ("step", "error", "memory")
TOLERANCES = (1e-1, 1e-3, 1e-6, 1e-12, 1e-24)
"""eV/atom, which the solver takes more and more iterations to reach."""
LEVELS = (100.0, 70.0, 50.0, 40.0, 30.0, 25.0, 20.0, 15.0, 12.0, 10.0)
"""RMSE of the validation frames' forces, meV/Å."""
MACE_EPOCH = re.compile(r"Epoch (\d+): .*RMSE_F=\s*([\d.]+) meV")


class Worker:
    """A network's process."""

    def __init__(self, name: str, python: str, frames: Path, batch: int) -> None:
        environment = single_thread_environment()
        if name in OURS:
            environment["PYTHONPATH"] = str(REPOSITORY)
        self.process = subprocess.Popen(
            [python, str(WORKER), name, str(frames), str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.facts = self._answer()
        self.times: list[dict[str, float]] = []

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError("a network's process ended; run training_worker.py by itself to see why.")

    def go(self, steps: int) -> None:
        """Take steps and keep their times."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self.times.append(self._answer())

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure_steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    names = [*OURS, *(MACE if options.peer else ())]
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.extxyz"
        write(frames, read_file(options.data))  # also of a compressed file, which MACE's environment reads slowly
        workers = {
            name: Worker(name, sys.executable if name in OURS else options.peer, frames, options.batch)
            for name in names
        }
        for turn in range(options.repeats):
            for name in rotated(names, turn):
                workers[name].go(options.steps)
        for worker in workers.values():
            worker.stop()
    return [
        {
            "name": name,
            "weights": worker.facts["weights"],
            "cpu_s": statistics.median(t["cpu_s"] for t in worker.times),
            "wall_s": statistics.median(t["wall_s"] for t in worker.times),
            "mib": max(t["peak_mib"] for t in worker.times) - worker.facts["resident_mib"],
            "resident_mib": worker.facts["resident_mib"],
        }
        for name, worker in workers.items()
    ]


def problem() -> tuple[DEQAttention, Graph]:
    """A model whose iteration is slow, and a crystal of 64 atoms."""
    torch.manual_seed(0)
    model = DEQAttention(DEQAttentionConfig(elements=(14,), contraction=0.97)).double()
    with torch.no_grad():
        for weight in model.cell.parameters():
            weight.mul_(3.0)
    atoms = bulk("Si", cubic=True) * 2
    atoms.rattle(0.1, seed=0)
    return model, graph_from_atoms(atoms, model.cutoff, dtype=torch.float64)


def implicit(tol: float) -> tuple[float, int]:
    """This project's gradient, iterated plainly to a tolerance: MiB at most, and applications of the cell."""
    model, graph = problem()
    before = resident_mib()
    found = evaluate(model, graph, forces=True, tol=tol, solver=Picard(), max_steps=1000)
    assert found.forces is not None
    (found.energy.sum() + found.forces.square().sum()).backward()
    return peak_mib() - before, found.equilibrium.evaluations[0]


def unrolled(steps: int) -> float:
    """Back-propagation through so many steps, twice: MiB at most."""
    model, graph = problem()
    before = resident_mib()
    species, vectors = model.species(graph.numbers), graph.vectors.clone().requires_grad_()
    injection = model.encode(vectors, species, species[graph.neighbors], graph.mask)
    z, weights = injection.u, model.cell_weights()
    for _ in range(steps):
        z = apply_cell(z, injection, graph.neighbors, weights)
    energy = model.readout(z, species).sum()
    (gradient,) = torch.autograd.grad(energy, vectors, create_graph=True)
    (energy + forces_from(gradient, graph).square().sum()).backward()
    return peak_mib() - before


def measure_memory() -> list[dict[str, float]]:
    """Every figure in a process of its own."""
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for tol in TOLERANCES:
            mib, steps = pool.apply(implicit, (tol,))
            rows.append({"tol": tol, "iterations": steps, "implicit": mib, "unrolled": pool.apply(unrolled, (steps,))})
    return rows


def epochs_to(levels: Sequence[float], errors: list[float]) -> list[int | None]:
    """Epochs after which the error was first at or below each level."""
    return [next((epoch for epoch, error in enumerate(errors, 1) if error <= level), None) for level in levels]


def measure_errors(options: argparse.Namespace, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each network the steps of an epoch, the epochs to each level and the seconds these take."""
    records = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    architecture = json.loads((options.run / "last.json").read_text())["architecture"]
    ours = next(name for name, (known, _) in OURS.items() if known == architecture)
    curves = {
        ours: [1e3 * r["validation"]["errors"]["all"]["forces"]["rmse"] for r in records],
        "mace-128x0e": [float(error) for _, error in MACE_EPOCH.findall(options.mace_log.read_text())],
    }
    per_epoch = records[0]["step"]
    cpu = {own["name"]: own["cpu_s"] for own in steps}
    found: dict[str, Any] = {}
    for name, errors in curves.items():
        epochs = epochs_to(LEVELS, errors)
        minutes = [None if n is None else n * per_epoch * cpu[name] / 60.0 for n in epochs]
        found[name] = {"epochs": epochs, "minutes": minutes, "last": errors[-1], "n_epochs": len(errors)}
    return found


def report(data: dict[str, Any]) -> str:
    lines = ["# Training", "", markdown_machine(data["machine"]), ""]
    if "step" in data:
        header = ["network", "weights", "CPU time a step, ms", "structures a second", "memory of a step, MiB"]
        rows = [
            [
                own["name"],
                f"{own['weights']:,}",
                figure(1e3 * own["cpu_s"]),
                figure(data["batch"] / own["cpu_s"]),
                figure(own["mib"]),
            ]
            for own in data["step"]
        ]
        lines += [f"Steps on batches of {data['batch']} molecules, one thread, float32, energy and forces.", ""]
        lines += [markdown_table(header, rows), ""]
    if "error" in data:
        curves = [own[key] for own in data["error"].values() for key in ("epochs", "minutes")]
        header = ["forces, meV/Å", *(f"{name}, {unit}" for name in data["error"] for unit in ("epochs", "min"))]
        rows = [
            [figure(level), *("not reached" if curve[i] is None else figure(curve[i]) for curve in curves)]
            for i, level in enumerate(LEVELS)
        ]
        lines += ["CPU time until the RMSE of the validation frames' forces is at a level.", ""]
        lines += [markdown_table(header, rows), ""]
    if "memory" in data:
        rows = [[row["iterations"], figure(row["implicit"]), figure(row["unrolled"])] for row in data["memory"]]
        header = ["iterations", "implicit gradient, MiB", "unrolled, MiB"]
        lines += ["Peak memory of a gradient of energy and forces in the weights, 64 atoms, float64.", ""]
        lines += [markdown_table(header, rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, help="frames with energies and forces, all of one molecule, for the steps")
    parser.add_argument("--peer", help="interpreter of an environment with mace-torch")
    parser.add_argument("--run", type=Path, help="folder of a training run of this project")
    parser.add_argument("--mace-log", type=Path, help="what mace_run_train wrote")
    parser.add_argument("--batch", type=int, default=5, help="structures in a batch")
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns")
    options = parser.parse_args()
    path = RESULTS / "training.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    data["machine"] = machine()
    if "memory" in options.part:
        data["memory"] = measure_memory()
    if "step" in options.part:
        if options.data is None:
            parser.error("the steps need --data FRAMES")
        data |= {"batch": options.batch, "step": measure_steps(options)}
    if "error" in options.part:
        if options.run is None or options.mace_log is None or "step" not in data:
            parser.error("the errors need --run, --mace-log and the times of the steps")
        data["error"] = measure_errors(options, data["step"])
    write_results("training", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
