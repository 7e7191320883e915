"""Frames and options of a tiny universal training set."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

ROOT = Path(__file__).parents[2] / "data"
METALS = ["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"]
TINY = [
    "--teacher", "emt", "--species", "Cu", "Al", "Ni", "Pt",
    "--elements", "2", "--dimers", "1", "--alloys", "1", "--molecules", "0",
]  # fmt: skip


def emt_frames(number: int, *, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(number):
        atoms = bulk(METALS[k % len(METALS)], cubic=True)
        atoms.positions = (atoms.positions + rng.normal(0, 0.05, atoms.positions.shape)).astype(np.float32)
        atoms.set_cell(atoms.cell.array.astype(np.float32))
        atoms.info |= {"tag": "element", "step": k % 4}
        atoms.calc = EMT()
        frames.append(atoms)
    return frames
