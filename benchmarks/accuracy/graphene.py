"""How good is the packaged graphene model, and how fast?

    # errors, of the frames farther than 0.3 Å apart
    python -m benchmarks.accuracy.graphene --test graphene_test.extxyz
    python -m benchmarks.accuracy.graphene --part lattice time

- errors: on DFT test frames that carry `train_nn_distance`, the distance to the nearest training frame in Å (the
  published split leaks), beside the published potential where its energies and forces are in the file;
- lattice: the relaxed cell of two atoms;
- time: energy, and energy and forces, of a rattled sheet of 60 atoms through the calculator, CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import graphene
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import BFGS

from ase_andersonn import AndersoNN
from benchmarks._common import RESULTS, figure, interleaved, machine, markdown_machine, markdown_table, write_results

FAR = 0.3
"""Å from the nearest training frame: no leak."""
PUBLISHED = "NEP (Dong et al. 2024)"
PARTS = ("errors", "lattice", "time")


def rms(differences: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.square(np.concatenate(differences)))))


def mean_abs(differences: list[np.ndarray]) -> float:
    return float(np.mean(np.abs(np.concatenate(differences))))


def residuals(frames: list[Atoms], predicted: list[tuple[float, np.ndarray]]) -> dict[str, float]:
    """Errors in meV/atom and meV/Å."""
    energy = [
        np.array([1e3 * (e - atoms.get_potential_energy()) / len(atoms)])
        for atoms, (e, _) in zip(frames, predicted, strict=True)
    ]
    forces = [1e3 * (f - atoms.get_forces()).ravel() for atoms, (_, f) in zip(frames, predicted, strict=True)]
    return {
        "energy_rmse": rms(energy),
        "energy_mae": mean_abs(energy),
        "forces_rmse": rms(forces),
        "forces_mae": mean_abs(forces),
    }


def measure_errors(test: Path) -> dict[str, Any]:
    frames = read(test, ":")
    calc = AndersoNN("graphene", compile=False)
    ours = [(r["energy"], r["forces"]) for r in calc.evaluate(frames)]
    models = {"graphene": ours}
    if all("nep_forces" in atoms.arrays and "nep_energy" in atoms.info for atoms in frames):
        models[PUBLISHED] = [(atoms.info["nep_energy"], atoms.arrays["nep_forces"]) for atoms in frames]
    distance = np.array([atoms.info["train_nn_distance"] for atoms in frames])
    rows = []
    for group, chosen in {"all": distance > -1.0, f"farther than {FAR} Å": distance > FAR}.items():
        places = np.flatnonzero(chosen)
        for name, predicted in models.items():
            errors = residuals([frames[i] for i in places], [predicted[i] for i in places])
            rows.append({"frames": group, "n": len(places), "model": name, **errors})
    return {"rows": rows}


def measure_lattice() -> dict[str, Any]:
    atoms = graphene(a=2.5, vacuum=10.0)
    atoms.pbc = True
    atoms.calc = AndersoNN("graphene", dtype="float64", tol=1e-10, warm_start=False, compile=False)
    moved = FrechetCellFilter(atoms, mask=[True, True, False, False, False, True])
    converged = BFGS(moved, logfile=None).run(fmax=1e-4, steps=200)
    return {"a": float(atoms.cell.lengths()[0]), "angle": float(atoms.cell.angles()[2]), "converged": bool(converged)}


def sheet_of_60() -> Atoms:
    """A periodic orthogonal sheet, rattled."""
    places = [[0, 0, 0.5], [0.5, 1 / 6, 0.5], [0.5, 0.5, 0.5], [0, 2 / 3, 0.5]]
    cell = [2.466, np.sqrt(3) * 2.466, 20.0]
    return Atoms("C4", scaled_positions=places, cell=cell, pbc=True) * (5, 3, 1)


def measure_time(repeats: int) -> dict[str, Any]:
    """Milliseconds of CPU time a call, with all atoms moved by about 0.03 Å from call to call."""
    torch.set_num_threads(1)
    rng, functions = np.random.default_rng(0), {}
    start = sheet_of_60()

    def call(calc: AndersoNN, what: str) -> None:
        atoms = start.copy()
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        calc.get_property(what, atoms)

    for label, compiled in (("compiled", True), ("eager", False)):
        for what in ("energy", "forces"):
            functions[f"{what}, {label}"] = partial(call, AndersoNN("graphene", compile=compiled), what)
    times = interleaved(functions, repeats=repeats, warm=10)
    return {name: 1e3 * time.cpu_median for name, time in times.items()}


def report(data: dict[str, Any]) -> str:
    lines = ["# Graphene", "", markdown_machine(data["machine"]), ""]
    if "errors" in data:
        header = ["test frames", "n", "model", "energy RMSE", "MAE, meV/atom", "forces RMSE", "MAE, meV/Å"]
        keys = ("energy_rmse", "energy_mae", "forces_rmse", "forces_mae")
        table = [
            [row["frames"], row["n"], row["model"], *(figure(row[key]) for key in keys)]
            for row in data["errors"]["rows"]
        ]
        lines += ["## Errors on DFT test frames", "", markdown_table(header, table), ""]
    if "lattice" in data:
        lines += ["## Lattice", "", f"Lattice constant {data['lattice']['a']:.4f} Å.", ""]
    if "time" in data:
        table = [[name, figure(value)] for name, value in data["time"].items()]
        lines += ["## 60 atoms through the calculator", "", markdown_table(["call", "CPU time, ms"], table), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--test", type=Path, help="test frames, for the errors")
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    path = RESULTS / "graphene.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    data["machine"] = machine()
    parts = options.part or (PARTS if options.test else PARTS[1:])
    if "errors" in parts:
        if options.test is None:
            parser.error("the errors need --test FILE")
        data["errors"] = measure_errors(options.test)
    if "lattice" in parts:
        data["lattice"] = measure_lattice()
    if "time" in parts:
        data["time"] = measure_time(options.repeats)
    write_results("graphene", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
