"""When does Anderson acceleration pay in an equilibrium classifier of crystals?

    python -m benchmarks.solvers.deep_andersonn --data frames/mp20bt_train.extxyz frames/mp20bt_test.extxyz

The study of Deep AndersoNN (arXiv 2407.19724) with the packaged classifier: the same cell, weights and residuals,
solved by forward (Picard) iteration and by Anderson's method. The trained cell contracts so fast that there is little
to gain; so its last matrix is also multiplied beyond its bound, γ from 0.7 to 3, which brings the measured spectral
radius ρ of the Jacobian close to 1 (what the labels then are does not matter: it is the solvers that are compared).

- inference: applications of the cell and CPU time at residuals 1e-2 to 1e-5, for every γ; accuracy at γ = 0.7;
- tradeoff: applications, CPU time and residual over window m and mixing β, at two γ;
- training: from the same first weights, with the same batches, at two γ: accuracy against CPU time.

Times are medians of CPU times taken in turn, one thread. The parts are kept in the results file; `--part` runs some of
them again. `data/recipes/electronic/frames.py` makes the frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ase_andersonn.checkpoints.checkpoint import load_classifier
from ase_andersonn.classifiers.graph_classifier import GraphClassifier
from ase_andersonn.classifiers.layers.implicit_cell import CellSolver, equilibrium
from ase_andersonn.solvers import Anderson, Picard, Segments, Solver
from ase_andersonn.structures.samples import SampleBatch
from ase_andersonn.training.classification import ClassifierTrainConfig
from ase_andersonn.training.classification.data import LabelledSamples
from ase_andersonn.training.classification.table import read_entries
from ase_andersonn.training.classification.trainer import ClassifierTrainer
from benchmarks._common import RESULTS, interleaved, machine, rotated, write_results
from benchmarks.solvers.deep_andersonn_report import draw, report

PARTS = ("inference", "tradeoff", "training")
CONTRACTIONS = (0.7, 0.99, 1.5, 2.0, 2.5, 2.8, 3.0)
STIFF = 2.8
STIFF_TRAINING = 2.5
"""The trade-off and the training are measured at γ = 0.7 and at these."""
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
WINDOWS = tuple(range(1, 9))
MIXINGS = (0.3, 0.5, 0.7, 0.85, 1.0)
TRADEOFF_TOLERANCE = 1e-4
BUDGET = 8
"""Applications after which residuals are compared."""
MAX_STEPS = 600
TEST_STRUCTURES = 1500
"""For accuracies."""
ROWS = 2000
"""Atoms evaluated at once, as the classifier does."""
SOLVERS: dict[str, Solver] = {"Anderson": Anderson(5), "Picard": Picard()}


class Cells:
    """The classifier's cell on blocks of structures, with what the geometry gives worked out once.

    Args:
        model: the classifier; its γ is set from outside.
        batches: blocks of structures.
    """

    def __init__(self, model: GraphClassifier, batches: Sequence[SampleBatch]) -> None:
        self.model, self.batches = model, batches
        with torch.no_grad():
            self.injections = [model.encode(*model.edge_inputs(batch), batch.graph.mask) for batch in batches]

    @torch.no_grad()
    def solve(self, solver: Solver, tol: float, max_steps: int = MAX_STEPS) -> dict[str, Any]:
        """Applications to a block, steps of a structure, residuals and convergence."""
        weights = self.model.cell.weights()
        found = []
        for batch, injection in zip(self.batches, self.injections, strict=True):
            settings = CellSolver(solver, tol, max_steps)
            graph = batch.graph
            segments = Segments(graph.system, graph.n_systems)
            equilibrium(injection, weights, graph.neighbors, graph.reverse, segments, settings)
            assert settings.forward is not None
            found.append(settings.forward)
        steps, residual = torch.cat([s.steps for s in found]).double(), torch.cat([s.residual for s in found])
        return {
            "applications": sum(s.evaluations for s in found) / len(found),
            "steps": float(steps.mean()),
            "residual": float(residual.median()),
            "converged": all(bool(s.converged.all()) for s in found),
        }

    @torch.inference_mode()
    def embed(self, solver: Solver, tol: float) -> torch.Tensor:
        """The whole network: logits of all structures, block by block."""
        model = self.model
        model.solver, model.config = solver, replace(model.config, tolerance=tol, max_steps=MAX_STEPS)
        return torch.cat([model(batch) for batch in self.batches])

    def radii(self) -> dict[str, float]:
        """Spectral radii of the Jacobians at the fixed points."""
        self.model.solver, self.model.config = Anderson(8), replace(self.model.config, tolerance=1e-5, max_steps=600)
        found = torch.cat([self.model.spectral_radius(batch) for batch in self.batches])
        return {"median": float(found.median()), "largest": float(found.max())}


def batches_of(model: GraphClassifier, data: LabelledSamples) -> tuple[list[SampleBatch], torch.Tensor]:
    """Blocks of similar width, and their labels in that order."""
    blocks = data.blocks(range(len(data)), ROWS)
    order = [index for block in blocks for index in block]
    return [model.collate([data.samples[i] for i in block]) for block in blocks], data.targets[order]


def samples_of(model: GraphClassifier, path: Path, n: int) -> LabelledSamples:
    """`n` structures of a file, taken evenly."""
    entries = read_entries([str(path)], model.labels, value="value", path="path")
    return LabelledSamples.of(model, entries[:: max(len(entries) // n, 1)][:n], progress_bar=False)


def measure_inference(cells: Cells, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for gamma in CONTRACTIONS:
        cells.model.cell.contraction = gamma
        radii = cells.radii()
        for tol in TOLERANCES:
            row: dict[str, Any] = {"gamma": gamma, "radius": radii, "tol": tol, "solvers": {}}
            times = interleaved({name: partial(cells.solve, s, tol) for name, s in SOLVERS.items()}, repeats)
            for name, solver in SOLVERS.items():
                entry = cells.solve(solver, tol) | {"cpu": times[name].cpu_median, "wall": times[name].wall_median}
                row["solvers"][name] = entry
            if gamma in (0.7, STIFF):
                whole = interleaved({name: partial(cells.embed, s, tol) for name, s in SOLVERS.items()}, repeats)
                for name in SOLVERS:
                    row["solvers"][name] |= {"whole_cpu": whole[name].cpu_median}
            rows.append(row)
            print(f"γ {gamma}, ρ {radii}, residual {tol:g}", row["solvers"], flush=True)
    cells.model.cell.contraction = 0.7
    return rows


def labels_study(model: GraphClassifier, data: LabelledSamples) -> dict[str, Any]:
    """Accuracy, and what differs from the labels of a tight residual, for every solver and residual."""
    batches, targets = batches_of(model, data)
    cells = Cells(model, batches)
    exact = (cells.embed(Anderson(5), 1e-6) / model.temperature).softmax(1)
    rows = []
    for tol in TOLERANCES:
        for name, solver in SOLVERS.items():
            found = (cells.embed(solver, tol) / model.temperature).softmax(1)
            row: dict[str, Any] = {"tol": tol, "solver": name}
            row["accuracy"] = float((found.argmax(1) == targets).double().mean())
            row["other_labels"] = int((found.argmax(1) != exact.argmax(1)).sum())
            row["largest_difference"] = float((found - exact).abs().max())
            rows.append(row)
    return {"n": len(data), "rows": rows}


def measure_tradeoff(cells: Cells, repeats: int) -> list[dict[str, Any]]:
    found = []
    for gamma in (0.7, STIFF):
        cells.model.cell.contraction = gamma
        solvers = {(m, b): Anderson(m, b) for m in WINDOWS for b in MIXINGS}
        solvers |= {(0, b): Picard(b) for b in MIXINGS}
        functions = {str(k): partial(cells.solve, s, TRADEOFF_TOLERANCE) for k, s in solvers.items()}
        times = interleaved(functions, repeats)
        rows = [
            {
                "window": key[0],
                "mixing": key[1],
                "cpu": times[str(key)].cpu_median,
                "budget_residual": cells.solve(solver, 1e-30, BUDGET)["residual"],
                **cells.solve(solver, TRADEOFF_TOLERANCE),
            }
            for key, solver in solvers.items()
        ]
        found.append({"gamma": gamma, "radius": cells.radii(), "tol": TRADEOFF_TOLERANCE, "rows": rows})
        print(f"γ {gamma}: fastest {min(rows, key=lambda row: row['cpu'])}", flush=True)
    cells.model.cell.contraction = 0.7
    return found


def trainer_of(train: Path, folder: Path, gamma: float, solver: Solver, epochs: int) -> ClassifierTrainer:
    """A run whose cell has this γ, also beyond the bound below which a contraction is certain, and this solver."""
    config = ClassifierTrainConfig(
        train=(str(train),), output=str(folder), max_epochs=epochs, device="cpu", model={"max_steps": 200}
    )
    trainer = ClassifierTrainer(config, progress_bar=False)
    model: Any = trainer.model
    model.cell.contraction, model.solver = gamma, solver
    return trainer


def step(trainer: ClassifierTrainer, indices: list[int]) -> dict[str, float]:
    """One step of the optimiser: CPU time, and applications of the cell and its transpose to the last block."""
    model: Any = trainer.model
    torch.manual_seed(trainer.position.step)  # the same dropout for all
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.step(indices)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    solves = {"forward": model.statistics, "adjoint": model.adjoint_statistics}
    found = {name: float(solve.evaluations) for name, solve in solves.items()}
    converged = min(float(solve.converged.double().mean()) for solve in solves.values())
    return {"cpu": cpu, "wall": wall, "converged": converged, **found}


@torch.no_grad()
def tested(trainer: ClassifierTrainer, data: LabelledSamples) -> dict[str, Any]:
    """Accuracy of the averaged weights on structures that were not learnt, and their spectral radii."""
    model: Any = trainer.model
    model.eval()
    with trainer.average.applied(model):
        batches, targets = batches_of(model, data)
        right = torch.cat([model(batch) for batch in batches]).argmax(1) == targets
        radii = torch.cat([model.spectral_radius(batch) for batch in batches])
    model.train()
    radius = {"median": float(radii.median()), "largest": float(radii.max())}
    return {"accuracy": float(right.double().mean()), "radius": radius}


def measure_training(train: Path, test: LabelledSamples, epochs: int) -> list[dict[str, Any]]:
    found = []
    for gamma in (0.7, STIFF_TRAINING):
        with tempfile.TemporaryDirectory() as folder:
            runs = {name: trainer_of(train, Path(folder), gamma, s, epochs) for name, s in SOLVERS.items()}
        curves: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
        for epoch in range(epochs):
            steps: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
            for turn, indices in enumerate(next(iter(runs.values())).sampler.epoch(epoch)):
                for name in rotated(list(runs), turn):
                    steps[name].append(step(runs[name], indices))
            for name, trainer in runs.items():
                sums = {key: sum(s[key] for s in steps[name]) for key in ("cpu", "wall")}
                names = ("forward", "adjoint", "converged")
                means = {key: sum(s[key] for s in steps[name]) / len(steps[name]) for key in names}
                curves[name].append({"epoch": epoch + 1, **sums, **means, **tested(trainer, test)})
                print(f"training, γ {gamma}, {name}", curves[name][-1], flush=True)
        n_train = len(next(iter(runs.values())).train)
        found.append({"gamma": gamma, "n_train": n_train, "n_test": len(test), "curves": curves, "steps": costs(runs)})
    return found


def costs(runs: dict[str, ClassifierTrainer], repeats: int = 5) -> list[dict[str, Any]]:
    """CPU time of the gradients of a batch, with the weights at the end, for every residual."""
    found = []
    batch = next(iter(runs.values())).sampler.epoch(0)[0]
    trainer: Any = runs["Anderson"]
    model = trainer.model

    def gradients(solver: Solver, tol: float) -> None:
        model.solver, model.config = solver, replace(model.config, training_tolerance=tol, max_steps=MAX_STEPS)
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.backward(batch)

    for tol in TOLERANCES:
        times = interleaved({name: partial(gradients, s, tol) for name, s in SOLVERS.items()}, repeats)
        for name, solver in SOLVERS.items():
            gradients(solver, tol)
            entry = {"tol": tol, "solver": name, "cpu": times[name].cpu_median, "wall": times[name].wall_median}
            entry |= {"forward": model.statistics.evaluations, "adjoint": model.adjoint_statistics.evaluations}
            found.append(entry)
    return found


def thinned(path: Path, n: int, folder: str) -> Path:
    """A file with `n` of the structures, taken evenly."""
    from ase.io import read, write

    frames = read(path, ":", format="extxyz")
    out = Path(folder) / "train.extxyz"
    write(out, frames[:: max(len(frames) // n, 1)][:n], format="extxyz")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs=2, type=Path, required=True, metavar=("TRAIN", "TEST"), help="extxyz files")
    parser.add_argument("--model", default="electronic", help="name or path of a graph classifier")
    parser.add_argument("--structures", type=int, default=200, help="of the test file, for times")
    parser.add_argument("--training-structures", type=int, default=960)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="none: only the report")
    parser.add_argument("--name", default="deep_andersonn", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model: Any = load_classifier(options.model).eval()
    cells = Cells(model, batches_of(model, samples_of(model, options.data[1], options.structures))[0])
    test = samples_of(model, options.data[1], TEST_STRUCTURES)
    kept = RESULTS / f"{options.name}.json"
    data: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for part in options.part:
        begun = time.process_time()
        if part == "inference":
            data[part] = measure_inference(cells, options.repeats)
            data["labels"] = labels_study(model, test)
        elif part == "tradeoff":
            data[part] = measure_tradeoff(cells, max(options.repeats - 2, 1))
        else:
            with tempfile.TemporaryDirectory() as folder:
                train = thinned(options.data[0], options.training_structures, folder)
                data[part] = measure_training(train, test, options.epochs)
        data.setdefault("machine", {})[part] = machine()
        data.setdefault("cpu_seconds", {})[part] = round(time.process_time() - begun)
        write_results(options.name, data, report(data), ("wall",))
    draw(data, RESULTS / f"{options.name}.png")
    write_results(options.name, data, report(data), ("wall",))
    print(report(data))


if __name__ == "__main__":
    main()
