"""Checks of the arrays of `ase.Atoms`, whose types and shapes ASE does not enforce."""

from typing import Any

import numpy as np
from ase import Atoms

REAL, INTEGER = "fiu", "iu"
"""Kinds of NumPy dtypes of real numbers and of integers."""
NUMBERS = {
    "positions": (REAL, "real numbers, in Å"),
    "numbers": (INTEGER, "integers, the atomic numbers"),
    "initial_charges": (REAL + "b", "real numbers"),
    "initial_magmoms": (REAL + "b", "real numbers"),
}
"""Arrays that affect results, with their allowed dtype kinds and a description of these."""
ROWS: dict[str, tuple[tuple[int, ...], ...]] = {"positions": ((3,),), "initial_magmoms": ((), (3,))}
"""Allowed shapes of one atom's entry; a scalar for arrays that are not listed."""
CONVERTIBLE = ("pymatgen", "phonopy")


def check_arrays(atoms: Any) -> None:
    """Raise unless the argument is ase.Atoms with one entry of the right type per atom in each array.

    Raises:
        TypeError: unless it is ase.Atoms, and for positions, numbers, charges or moments that are not numeric.
        ValueError: for arrays of a wrong shape or length, or without positions or numbers.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(_not_atoms(atoms))
    arrays = atoms.arrays
    for name in ("positions", "numbers"):
        if name not in arrays:
            raise ValueError(f"the structure has no array {name!r}; create it again as ase.Atoms(numbers, positions).")
    for name, (kinds, words) in NUMBERS.items():
        if name in arrays and np.asarray(arrays[name]).dtype.kind not in kinds:
            raise TypeError(
                f"atoms.arrays[{name!r}] is of type {np.asarray(arrays[name]).dtype}; it has to contain {words}. "
                f"Convert it and set it again."
            )
    n_atoms = len(arrays["numbers"])
    for name, values in arrays.items():
        rows = ROWS.get(name, ((),)) if name in NUMBERS else (np.shape(values)[1:],)
        if np.shape(values) not in [(n_atoms, *row) for row in rows]:
            wanted = " or ".join(str((n_atoms, *row)) for row in rows)
            raise ValueError(
                f"atoms.arrays[{name!r}] has the shape {np.shape(values)}; for {n_atoms} atomic numbers it has to be "
                f"{wanted}. Every atom has one entry in every array: set it again, or create the structure again."
            )


def _not_atoms(given: Any) -> str:
    if isinstance(given, type):
        return f"a structure is ase.Atoms; the class {given.__name__} was given, not one of its objects."
    libraries = {cls.__module__.split(".")[0] for cls in type(given).__mro__}
    name = f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")
    remedy = "Read files with ase.io.read."
    if libraries & set(CONVERTIBLE):
        remedy = (
            "AndersoNN.evaluate([structure]) takes it as it is; else convert it first, as "
            "pymatgen.io.ase.AseAtomsAdaptor.get_atoms does."
        )
    return f"a calculator takes ase.Atoms; {name} was given. {remedy}"
