"""Structures on which the ways to run a model are compared."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from ase_andersonn.potentials.base import EnergyModel

SMALL, LARGE = 2, 12
"""Atoms along each axis."""
DENSITY = 0.05
"""Atoms per Å³, of silicon; less where atoms would be closer than the sum of their covalent radii."""
STDEV = 0.05
"""Å: displacements."""
RADIUS, MAX_ELEMENTS = 1.2, 4
"""The elements whose covalent radii are the nearest to this one, Å, and how many of them."""


def sample(model: EnergyModel, n_side: int, seed: int) -> Atoms:
    """Up to four of the model's elements in random order on the displaced sites of a periodic simple cubic lattice.

    Args:
        model: what has the elements.
        n_side: atoms along each axis.
        seed: of order and displacements.
    """
    rng = np.random.default_rng(seed)
    elements = sorted(model.elements, key=lambda number: abs(covalent_radii[number] - RADIUS))[:MAX_ELEMENTS]
    spacing = max(DENSITY ** (-1.0 / 3.0), 2.0 * float(covalent_radii[elements].max()))
    sites = spacing * np.indices((n_side,) * 3).reshape(3, -1).T
    numbers = rng.permutation(np.resize(elements, len(sites)))
    return Atoms(numbers, sites + rng.normal(scale=STDEV, size=sites.shape), cell=[n_side * spacing] * 3, pbc=True)
