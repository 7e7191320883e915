"""What an `ase.Atoms` holds, looked at before anything is computed from it: ASE lets its arrays be anything."""

from typing import Any

import numpy as np
from ase import Atoms

REAL, WHOLE = "fiu", "iu"
"""Kinds of NumPy dtypes."""
NUMBERS = {
    "positions": (REAL, "real numbers, in Å"),
    "numbers": (WHOLE, "integers, the atomic numbers"),
    "initial_charges": (REAL + "b", "real numbers"),
    "initial_magmoms": (REAL + "b", "real numbers"),
}
"""Arrays that results may depend on: the kinds they may be of, in letters and in words."""
ROWS: dict[str, tuple[tuple[int, ...], ...]] = {"positions": ((3,),), "initial_magmoms": ((), (3,))}
"""Shapes of one atom's entry; a single number where nothing stands here."""
CONVERTIBLE = ("pymatgen", "phonopy")


def check_arrays(atoms: Any) -> None:
    """Raise for what is no structure, or one whose arrays do not hold one entry of the right kind for each atom.

    Raises:
        TypeError: for what is not ase.Atoms, and for positions, numbers, charges or moments that are no numbers.
        ValueError: for arrays of another shape or length, or without positions or numbers.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(_not_atoms(atoms))
    arrays = atoms.arrays
    for name in ("positions", "numbers"):
        if name not in arrays:
            raise ValueError(f"the structure has no array {name!r}; make it anew as ase.Atoms(numbers, positions).")
    for name, (kinds, words) in NUMBERS.items():
        if name in arrays and np.asarray(arrays[name]).dtype.kind not in kinds:
            raise TypeError(
                f"atoms.arrays[{name!r}] is of type {np.asarray(arrays[name]).dtype}; it has to hold {words}. "
                f"Convert it and set it again."
            )
    n_atoms = len(arrays["numbers"])
    for name, values in arrays.items():
        rows = ROWS.get(name, ((),)) if name in NUMBERS else (np.shape(values)[1:],)
        if np.shape(values) not in [(n_atoms, *row) for row in rows]:
            wanted = " or ".join(str((n_atoms, *row)) for row in rows)
            raise ValueError(
                f"atoms.arrays[{name!r}] has the shape {np.shape(values)}; for {n_atoms} atomic numbers it has to be "
                f"{wanted}. Every atom has one entry in every array: set it again, or make the structure anew."
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
