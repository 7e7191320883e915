"""Structures on which the ways to run a model are compared."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import covalent_radii

from ase_andersonn.potentials.base import EnergyModel

SMALL, LARGE = 1, 6
"""Cubic cells of diamond's structure, 8 atoms each, along each axis."""
STRETCH, STDEV = 1.05, 0.05
"""Nearest distance in shares of the sum of covalent radii, and displacements, Å."""
MAX_ELEMENTS = 4


def sample(model: EnergyModel, n_cells: int, seed: int) -> Atoms:
    """Atoms of up to four of the model's elements in turn, on the displaced sites of diamond's structure.

    Args:
        model: what has the elements.
        n_cells: 8-atom cells along each axis.
        seed: of the displacements.
    """
    elements = model.elements[:: max(1, len(model.elements) // MAX_ELEMENTS)][:MAX_ELEMENTS]
    nearest = STRETCH * 2.0 * float(np.max(covalent_radii[list(elements)]))
    atoms: Atoms = bulk("C", "diamond", a=nearest * 4.0 / np.sqrt(3.0), cubic=True) * n_cells
    atoms.numbers = np.resize(elements, len(atoms))
    atoms.rattle(STDEV, seed=seed)
    return atoms
