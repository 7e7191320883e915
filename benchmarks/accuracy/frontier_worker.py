"""One trained potential in its own environment: its errors, and the time of energy and forces.

`frontier.py` starts it with the arguments KIND MODEL FOLDER. MACE's side imports nothing of `ase_andersonn`.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from benchmarks._worker import serve

COPIES = 20
DTYPES = ("float64", "float32")
APART = 14.0
"""Å between the centers of the molecules that are timed together: none sees another."""


def calculators(kind: str, model: str) -> tuple[Any, Any, int]:
    """For the errors and for the time, and the number of weights.

    Energies of thousands of eV are summed in double precision, which this project does by itself.
    """
    if kind == "mace":
        # mace first: it is what lets its e3nn load its tables with a recent torch
        from mace.calculators import MACECalculator

        double, single = (MACECalculator(model_paths=model, device="cpu", default_dtype=t) for t in DTYPES)
        return double, single, sum(p.numel() for p in single.models[0].parameters())
    from ase_andersonn import AndersoNN

    calc = AndersoNN(model, compile=True)
    return calc, calc, sum(p.numel() for p in calc.model.parameters())


def errors(calc: Any, frames: list[Atoms]) -> tuple[float, float]:
    """RMSE of the molecule's energy, meV, and of the forces, meV/Å."""
    energies, forces = [], []
    for labelled in frames:
        atoms = labelled.copy()
        atoms.calc = calc
        forces.append(atoms.get_forces() - labelled.get_forces())
        energies.append(atoms.get_potential_energy() - labelled.get_potential_energy())
    return tuple(1e3 * float(np.sqrt(np.mean(np.square(x)))) for x in (energies, forces))  # type: ignore[return-value]


def together(frames: list[Atoms]) -> Atoms:
    """Molecules that do not feel each other, as one structure."""
    side = math.ceil(len(frames) ** (1 / 3))
    found = Atoms()
    for index, frame in enumerate(frames):
        atoms = Atoms(frame.numbers, frame.positions - frame.positions.mean(0))
        atoms.positions += APART * np.array(np.unravel_index(index, (side,) * 3))
        found += atoms
    return found


def main() -> None:
    kind, model, folder = sys.argv[1:]
    exact, fast, weights = calculators(kind, model)
    test = {t: read(Path(folder) / f"{t}.extxyz", ":") for t in ("300K", "600K")}
    atoms, rng = together(test["300K"][:COPIES]), np.random.default_rng(0)
    start_positions = atoms.positions.copy()
    atoms.calc = fast

    def facts() -> dict[str, Any]:
        return {"kind": kind, "weights": weights} | {t: errors(exact, frames) for t, frames in test.items()}

    def call() -> dict[str, Any]:
        atoms.positions = start_positions + rng.normal(scale=0.02, size=atoms.positions.shape)
        start = time.process_time()
        atoms.get_forces()
        return {"us_per_atom": 1e6 * (time.process_time() - start) / len(atoms)}

    serve({"facts": facts, "call": call})


if __name__ == "__main__":
    main()
