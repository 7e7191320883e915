"""What does a training step take, what does an error take, and does memory grow with the iterations of the solver?

    python -m benchmarks.speed.training_step --data FRAMES --peer PYTHON --run RUN --mace-log LOG

- step: time of one step on a batch of molecules, and structures a second, of this project's networks and of MACE at two
  sizes on the same frames (extended XYZ with energies and forces), one thread, in turn; PYTHON is the interpreter of an
  environment with mace-torch (see speed/inference.py in README.md);
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
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase.build import bulk
from ase.io import write

from ase_andersonn.config import to_dict
from ase_andersonn.engine.energy_forces import evaluate, forces_from
from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.deq_cartesian import DEQCartesianConfig
from ase_andersonn.solvers.picard import Picard
from ase_andersonn.structures.files import read_file
from ase_andersonn.structures.graph import Graph, graph_from_atoms
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results
from benchmarks._worker import Worker, asked_in_turn, peak_mib, resident_mib, stop_all
from benchmarks.speed.training_worker import COMPILED, MACE, OURS

PARTS = ("step", "error", "memory")
TOLERANCES = (1e-1, 1e-3, 1e-6, 1e-12, 1e-24)
"""eV/atom, which the solver takes more and more iterations to reach."""
LEVELS = (100.0, 70.0, 50.0, 40.0, 30.0, 25.0, 20.0, 15.0, 12.0, 10.0)
"""RMSE of the validation frames' forces, meV/Å."""
MACE_EPOCH = re.compile(r"Epoch (\d+): .*RMSE_F=\s*([\d.]+) meV")


def measure_steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    names = [name for name in options.networks if name not in MACE or options.peer]
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames.extxyz"
        write(frames, read_file(options.data))  # also of a compressed file, which MACE's environment reads slowly
        pythons = {name: options.peer if name in MACE else sys.executable for name in names}
        workers = {
            name: Worker(python, "speed.training_worker", name, frames, options.batch)
            for name, python in pythons.items()
        }
        facts = {name: worker.ask("facts") for name, worker in workers.items()}
        times = asked_in_turn(workers, options.repeats, "steps", n=options.steps)
        stop_all(workers.values())
    return [
        {
            "name": name,
            "weights": own["weights"],
            "cpu_s": statistics.median(t["cpu_s"] for t in times[name]),
            "wall_s": statistics.median(t["wall_s"] for t in times[name]),
            "mib": max(t["peak_mib"] for t in times[name]) - own["resident_mib"],
            "resident_mib": own["resident_mib"],
        }
        for name, own in facts.items()
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
    injection = model.encode(vectors, species, graph.neighbors, graph.mask)
    z, weights = injection.u, model.cell_weights()
    for _ in range(steps):
        z = weights.apply(z, injection, graph.neighbors)
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


def first_at(levels: Sequence[float], curve: list[tuple[int, float]]) -> list[int | None]:
    """Steps after which the error was first at or below each level, of (steps, error)."""
    return [next((steps for steps, error in curve if error <= level), None) for level in levels]


def sizes(kind: tuple[str, dict[str, Any]], card: dict[str, Any]) -> dict[str, Any]:
    """All sizes of one of `OURS` for the elements of a card."""
    configs = {"DEQAttention": DEQAttentionConfig, "DEQCartesian": DEQCartesianConfig}
    return to_dict(configs[kind[0]](tuple(card["config"]["elements"]), **kind[1]))


def measure_errors(options: argparse.Namespace, data: dict[str, Any]) -> dict[str, Any]:
    """Of each network the steps to each level and the minutes these take, and its last error.

    Raises:
        ValueError: for a run of other sizes or batches than those whose steps were timed.
    """
    card = json.loads((options.run / "last.json").read_text())
    config = card["card"]["training"]["config"]
    names = [
        name for name, kind in OURS.items() if kind[0] == card["architecture"] and sizes(kind, card) == card["config"]
    ]
    n_atoms = len(read_file(options.data)[0])
    if not names or config["batch_atoms"] // n_atoms != data["batch"]:
        raise ValueError(f"{options.run} has other sizes or batches than those whose steps were timed.")
    records = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    ours = [(r["step"], 1e3 * r["validation"]["errors"]["all"]["forces"]["rmse"]) for r in records if "validation" in r]
    per_epoch = next(r["step"] for r in records if r["epoch"] == 1)  # of as many frames in batches of the same size
    log = MACE_EPOCH.findall(options.mace_log.read_text())
    curves = {names[0]: ours, "mace-128x0e": [((int(epoch) + 1) * per_epoch, float(error)) for epoch, error in log]}
    cpu = {own["name"]: own["cpu_s"] for own in data["step"]}
    found: dict[str, Any] = {}
    for name, curve in curves.items():
        steps = first_at(LEVELS, curve)
        minutes = [None if n is None else n * cpu[name] / 60.0 for n in steps]
        found[name] = {"steps": steps, "minutes": minutes, "last": curve[-1]}
    return found


def report(data: dict[str, Any]) -> str:
    lines = ["# Training", ""]
    for part, own in data["machines"].items():
        lines += [f"{part}: {markdown_machine(own)}", ""]
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
        own = data["error"]
        curves = [own[name][key] for name in own for key in ("steps", "minutes")]
        header = ["forces, meV/Å", *(f"{name}, {unit}" for name in own for unit in ("steps", "min"))]
        rows = [
            [figure(level), *("not reached" if curve[i] is None else figure(curve[i]) for curve in curves)]
            for i, level in enumerate(LEVELS)
        ]
        last = (
            f"{name} {figure(error)} after {steps:,}" for name, (steps, error) in ((n, own[n]["last"]) for n in own)
        )
        lines += [
            "Steps until the RMSE of the validation frames' forces (50 of 500, each program's own choice) was first"
        ]
        lines += [
            "at a level, and the CPU time of so many steps by the table above, without validation, reading of data"
        ]
        lines += [f"and MACE's averaging of weights. At the end of the runs: {'; '.join(last)} steps.", ""]
        lines += [markdown_table(header, rows), ""]
    if "memory" in data:
        rows = [[row["iterations"], figure(row["implicit"]), figure(row["unrolled"])] for row in data["memory"]]
        header = ["iterations", "implicit gradient, MiB", "unrolled, MiB"]
        lines += ["Peak memory of a gradient of energy and forces in the weights, 64 atoms, float64.", ""]
        lines += [markdown_table(header, rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["step", "memory"])
    parser.add_argument("--data", type=Path, help="frames with energies and forces, all of one molecule, for the steps")
    networks = [*OURS, *COMPILED, *MACE]
    parser.add_argument("--networks", nargs="+", choices=networks, default=networks, help="of the steps")
    parser.add_argument("--peer", help="interpreter of an environment with mace-torch")
    parser.add_argument("--run", type=Path, help="folder of a training run of this project")
    parser.add_argument("--mace-log", type=Path, help="what mace_run_train wrote")
    parser.add_argument("--batch", type=int, default=5, help="structures in a batch")
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns")
    options = parser.parse_args()
    path = RESULTS / "training.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if {"step", "error"} & set(options.part) and options.data is None:
        parser.error("steps and errors need --data FRAMES")
    if "error" in options.part and not (options.run and options.mace_log and (options.peer or "step" in data)):
        parser.error("the errors need --run, --mace-log and the times of MACE's steps")
    data["machines"] = data.get("machines", {}) | {part: machine() for part in options.part}
    if "memory" in options.part:
        data["memory"] = measure_memory()
    if "step" in options.part:
        data |= {"batch": options.batch, "step": measure_steps(options)}
    if "error" in options.part:
        data["error"] = measure_errors(options, data)
    write_results("training", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
