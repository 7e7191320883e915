"""Born effective charges of phonons: from phonopy's file or as arrays, with the crystal's symmetry."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from phonopy import Phonopy

Floats = NDArray[np.float64]
IONIC = 1.0
"""Difference of Pauling's electronegativities: of NaCl 2.2, MgO 2.1, GaAs 0.4."""


def is_ionic(crystal: Atoms) -> bool:
    """Whether two of the elements differ by more than 1 in Pauling's electronegativity."""
    from pymatgen.core.periodic_table import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements without one, which is nan
        values = [float(Element(symbol).X) for symbol in crystal.symbols.species()]
    known = [value for value in values if np.isfinite(value)]
    return len(known) > 1 and max(known) - min(known) > IONIC


def read_born(found: "Phonopy", path: Path) -> None:
    """Set the charges and the dielectric tensor of a file BORN.

    Raises:
        ValueError: for a file that is none, or of another crystal.
    """
    from phonopy.file_IO import parse_BORN

    try:
        read = parse_BORN(found.primitive, filename=str(path))
    except Exception as error:  # whatever phonopy stumbles over
        raise ValueError(f"{path} is no file BORN of phonopy: {error or type(error).__name__}.") from error
    if read is None:
        raise ValueError(f"{path} does not fit the {len(found.primitive)} atoms of the primitive cell.")
    found.nac_params = {**read, "factor": units.Hartree * units.Bohr}


def checked_charges(born: ArrayLike | None, dielectric: ArrayLike | None, n_atoms: int) -> tuple[Floats, Floats] | None:
    """Charges [n_atoms, 3, 3], e, and dielectric tensor [3, 3] as arrays; None without.

    Raises:
        ValueError: for one without the other, and for other shapes.
    """
    if (born is None) != (dielectric is None):
        raise ValueError("born and dielectric belong together; give both or neither.")
    if born is None or dielectric is None:
        return None
    charges, tensor = np.asarray(born, dtype=float), np.asarray(dielectric, dtype=float)
    if charges.shape != (n_atoms, 3, 3) or tensor.shape != (3, 3):
        raise ValueError(
            f"born has shape {charges.shape} and dielectric {tensor.shape}; they are ({n_atoms}, 3, 3), one tensor for "
            "each atom of the structure, and (3, 3)."
        )
    return charges, tensor


def add_charges(found: "Phonopy", charges: Floats, dielectric: Floats) -> None:
    """Set charges and dielectric tensor, made to obey the crystal's symmetry and the acoustic sum rule."""
    from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

    own, epsilon = symmetrize_borns_and_epsilon(
        charges,
        dielectric,
        found.unitcell,
        primitive_matrix=found.primitive_matrix,
        supercell_matrix=found.supercell_matrix,
    )
    found.nac_params = {"born": own, "dielectric": epsilon, "factor": units.Hartree * units.Bohr}
