"""Axes in which the tensor of a crystal is stated, whatever the orientation of its cell in a file.

IEEE standard 176-1987, of the conventional cell by spglib:

    cubic           x ∥ a, y ∥ b, z ∥ c
    tetragonal      x ∥ a, y ∥ b, z ∥ c, the fourfold axis
    orthorhombic    x ∥ a, y ∥ b, z ∥ c, named such that c < a < b
    hexagonal, trigonal    x ∥ a, z ∥ c, the sixfold or threefold axis
    monoclinic      y ∥ b, the twofold axis; z ∥ c, the shorter one of the other two
    triclinic       z ∥ c, y ⊥ a and c, of the reduced cell named such that c < a < b

A tensor of even rank is the same in inverted axes. pymatgen's `convert_to_ieee` differs for tetragonal crystals with
c < a, whose fourfold axis it takes for x.
"""

import warnings

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SYMPREC = 0.01
"""Å up to which positions are equal by symmetry, as in pymatgen."""
CUBIC = "x ∥ a, y ∥ b, z ∥ c"
AXES = {
    "cubic": CUBIC,
    "tetragonal": f"{CUBIC}, the fourfold axis",
    "orthorhombic": f"{CUBIC}, where c < a < b",
    "hexagonal": "x ∥ a, z ∥ c, the sixfold axis",
    "trigonal": "x ∥ a, z ∥ c, the threefold axis",
    "monoclinic": "y ∥ b, the twofold axis, z ∥ c, where c < a",
    "triclinic": "z ∥ c, y ⊥ a and c, where c < a < b in the reduced cell",
}
LAST = {"triclinic": 2, "monoclinic": 15, "orthorhombic": 74, "tetragonal": 142, "trigonal": 167, "hexagonal": 194}
"""The last space group of each crystal system."""


def standard_axes(crystal: Atoms) -> tuple[Floats, str]:
    """The standard axes of a crystal.

    Returns:
        rotation [3, 3], whose rows are the unit vectors x, y and z in the crystal's own axes; and in words what they
        are. Where spglib finds no symmetry, the crystal's own axes.
    """
    import spglib

    cell = (crystal.cell.array, crystal.get_scaled_positions(), crystal.numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on a change in how spglib reports failures
            found = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
    except Exception:  # spglib's own kind of error, which depends on its version
        found = None
    if found is None:
        return np.eye(3), "the structure's own axes, for its symmetry was not found"
    system = next((name for name, last in LAST.items() if found.number <= last), "cubic")
    vectors = np.linalg.inv(found.transformation_matrix).T @ crystal.cell.array
    return _rotation(system, vectors), f"{system}, {AXES[system]}"


def _rotation(system: str, vectors: Floats) -> Floats:
    """Unit vectors x, y, z for the rows a, b, c of the conventional cell."""
    a, _, c = vectors
    if system in ("orthorhombic", "triclinic"):
        c, a = vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")[:2]]
    elif system == "monoclinic":
        c, a = sorted((a, c), key=np.linalg.norm)
        a = -a if a @ c > 0 else a  # the angle between them is obtuse
    z = c / np.linalg.norm(c)
    y = np.cross(z, a)
    y /= np.linalg.norm(y)
    return np.array([np.cross(y, z), y, z])
