"""Structures of the tests of molecular dynamics."""

from ase import Atoms
from ase.build import bulk


def copper(rattle: float = 0.02) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(rattle, seed=1)
    return atoms
