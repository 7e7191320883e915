"""Structures to be screened, and what compares two screenings."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

FILES = ("table.csv", "table.json", "relaxed.xyz", "report.html")
"""What is the same byte for byte; an ASE database holds times too."""


def metals(repeats: int = 1) -> list[tuple[str, Atoms]]:
    """Distorted cells of EMT's metals, none of which is another one over again."""
    found = []
    for k, symbol in enumerate(("Cu", "Ni", "Al", "Pd", "Ag", "Pt", "Au")[: 7 * repeats] * repeats):
        atoms = bulk(symbol, cubic=k % 2 == 0) * (1 + k // 7, 1, 1)
        rng = np.random.default_rng(k)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
        found.append((f"{symbol}-{k}", atoms))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """The files that do not depend on when they were written."""
    return {name: (folder / name).read_bytes() for name in FILES}


class _EMT(EMT):
    stop, count = float("inf"), 0

    def calculate(self, *arguments: Any, **options: Any) -> None:
        self.count += 1
        if self.count > self.stop:
            raise KeyboardInterrupt
        super().calculate(*arguments, **options)


_EMT.__name__ = "EMT"  # a journal's settings hold it


def counting(stop: int) -> Any:
    """EMT that counts its calculations, and that Ctrl-C ends after `stop` of them."""
    calc = _EMT()
    calc.stop = stop
    return calc
