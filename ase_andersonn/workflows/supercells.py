"""Supercells large enough that what happens in one does not meet its own image."""

import math

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

MOST = 200_000
"""Atoms of a supercell that repeats are chosen for; more are a mistake in `min_length`."""


def supercell_matrix(atoms: Atoms, given: ArrayLike | None, min_length: float) -> NDArray[np.int64]:
    """Matrix [3, 3] whose columns are the supercell's vectors in those of the cell, as phonopy has it.

    Args:
        atoms: the crystal.
        given: three repeats, or a matrix whose rows are the supercell's vectors; None for the fewest repeats
            that make the distances of opposite faces at least `min_length`.
        min_length: Å.

    Raises:
        ValueError: for anything else, and for a supercell of more than 200,000 atoms.
    """
    if given is None:
        faces = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)  # distances of opposite ones
        repeats = np.ceil(min_length / faces - 1e-6).astype(np.int64)
        if (size := len(atoms) * math.prod(repeats.tolist())) > MOST:
            raise ValueError(f"min_length is {min_length} Å, a supercell of {size} atoms; {MOST} are the most.")
        return np.diag(repeats)
    matrix = np.asarray(given)
    if matrix.shape == (3,):
        matrix = np.diag(matrix)
    if matrix.shape != (3, 3) or not np.array_equal(matrix, np.round(matrix)) or np.linalg.det(matrix) < 0.5:
        raise ValueError(
            f"supercell is {given!r}; give three whole numbers, 1 or more, or a right-handed 3 × 3 matrix of them."
        )
    return matrix.T.astype(np.int64)
