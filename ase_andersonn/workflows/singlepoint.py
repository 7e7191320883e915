"""Energy, forces and stress of a structure as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ._evaluate import check_calculator, evaluate_all, read_structure
from ._results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class SinglePoint(Result):
    """Energy and its derivatives.

    Attributes:
        atoms: the structure.
        energy: eV.
        energy_per_atom: eV.
        forces: [n_atoms, 3], eV/Å.
        fmax: length of the longest force, eV/Å.
        stress: [6], eV/Å³, Voigt order xx yy zz yz xz xy; None where not periodic in three directions.
    """

    atoms: Atoms
    energy: float
    energy_per_atom: float
    forces: NDArray[np.float64]
    fmax: float
    stress: NDArray[np.float64] | None

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        axes.hist(np.linalg.norm(self.forces, axis=1), bins=30)
        axes.set(xlabel="force, eV/Å", ylabel="atoms", title=f"{self.energy_per_atom:.4f} eV/atom")


def singlepoint(structure: Any, calc: Any) -> SinglePoint:
    """Energy, forces and, where it repeats in three directions, stress.

    Args:
        structure: ASE, pymatgen, phonopy, or a path.
        calc: any ASE calculator.
    """
    check_calculator(calc)
    atoms = read_structure(structure)
    periodic = bool(atoms.pbc.all())
    (found,) = evaluate_all([atoms], calc, stress=periodic)
    forces = np.asarray(found["forces"], dtype=float)
    energy = float(found["energy"])
    stress = np.asarray(found["stress"], dtype=float) if periodic else None
    fmax = float(np.linalg.norm(forces, axis=1).max(initial=0.0))
    return SinglePoint(atoms, energy, energy / len(atoms), forces, fmax, stress)
