"""One trained model in its own environment: its errors, and the time of a call whenever asked on stdin, as JSON.

`frontier.py` starts it: python frontier_worker.py KIND MODEL FOLDER. For MACE nothing of this project is imported.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

COPIES = 20
APART = 14.0
"""Å between the molecules that are timed together, farther than any of the models sees."""


def calculator(kind: str, model: str) -> Any:
    if kind == "mace":
        # mace first: it is what lets its e3nn load its tables with a recent torch
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=model, device="cpu", default_dtype="float32")
    from ase_andersonn import AndersoNN

    return AndersoNN(model)


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
    side = round(len(frames) ** (1 / 3) + 0.5)
    found = Atoms()
    for index, frame in enumerate(frames):
        atoms = Atoms(frame.numbers, frame.positions - frame.positions.mean(0))
        atoms.positions += APART * np.array(np.unravel_index(index, (side,) * 3))
        found += atoms
    return found


def main() -> None:
    kind, model, folder = sys.argv[1:]
    calc = calculator(kind, model)
    test = {t: read(Path(folder) / f"test_MD_{t}.extxyz", ":") for t in ("300K", "600K")}
    print(json.dumps({t: errors(calc, frames) for t, frames in test.items()}), flush=True)
    atoms, rng = together(test["300K"][:COPIES]), np.random.default_rng(0)
    atoms.calc = calc
    for _ in sys.stdin:
        atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
        start = time.process_time()
        atoms.get_forces()
        print(json.dumps({"us_per_atom": 1e6 * (time.process_time() - start) / len(atoms)}), flush=True)


if __name__ == "__main__":
    main()
