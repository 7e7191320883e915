"""Units of lengths and labels, judged by their magnitude: most other units are far off any material.

Of stresses see `energy_stress`.
"""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.units import Hartree, kcal, kJ, mol
from numpy.typing import NDArray

from ase_andersonn.structures.convert import TOO_CLOSE, check_lengths, touching_shares
from ase_andersonn.structures.neighbors import Edges, neighbor_edges
from ase_andersonn.training.data.labels import LabelKeys, labels_of

BONDED_SHARE = 1.35
"""Of the sum of the covalent radii; the nearest neighbour of most atoms is nearer, but in noble gases."""
MAX_FRAMES = 50
"""Frames whose distances are looked at."""
STEEP_FORCE = 10.0
"""eV/Å, root mean square; half of a set is hardly ever so far from equilibrium."""
HARTREE_IN = {"Hartree": 1.0, "kcal/mol": Hartree / (kcal / mol), "kJ/mol": Hartree / (kJ / mol)}
"""Hartree in units that all-electron programs print."""
THOMAS_FERMI_ERROR = 0.03
"""Share by which all-electron energies differ from those of Thomas-Fermi atoms from carbon to bromine, at most.

Those of hydrogen alone, and of the heaviest atoms, differ by more and are not recognized.
"""


def check_lengths_of(frames: Sequence[Atoms], kind: str = "") -> list[str]:
    """A warning where hardly any atoms are bonded, as with lengths in bohr.

    Args:
        frames: of one set.
        kind: of the set, such as "validation ".

    Raises:
        ValueError: where atoms are too close together in most frames, as with lengths in nm.
    """
    sample = frames[:: max(len(frames) // MAX_FRAMES, 1)]
    errors = [error for atoms in sample if (error := _too_close(atoms))]
    if 2 * len(errors) > len(sample):
        raise ValueError(f"{len(errors)} of {len(sample)} {kind}frames hold atoms too close together: {errors[0]}")
    several = [atoms for atoms in sample if len(atoms) > 1 or atoms.pbc.any()]
    apart = [atoms for atoms in several if 2 * _n_bonded(atoms) < len(atoms)]
    if 2 * len(apart) <= len(several):
        return []
    return [
        f"in {len(apart)} of {len(several)} {kind}frames most atoms have no other nearer than {BONDED_SHARE:g} times "
        f"the sum of their covalent radii, as in {apart[0].get_chemical_formula()}. Are they that far apart, as in "
        "noble gases, or are the lengths not in Å?"
    ]


def _too_close(atoms: Atoms) -> str:
    try:
        check_lengths(atoms.numbers, _edges(atoms, TOO_CLOSE))
    except ValueError as error:
        return f"{atoms.get_chemical_formula()}: {error}"
    return ""


def _n_bonded(atoms: Atoms) -> int:
    """Number of atoms with a neighbour nearer than `BONDED_SHARE`."""
    edges = _edges(atoms, BONDED_SHARE)
    return len(np.unique(edges.center[touching_shares(atoms.numbers, edges) < BONDED_SHARE]))


def _edges(atoms: Atoms, share: float) -> Edges:
    """All pairs up to a share of the sum of their covalent radii, and some beyond."""
    radius = 2.0 * share * float(covalent_radii[atoms.numbers].max())
    return neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, radius)


def check_units(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> list[str]:
    """Warnings of labels whose magnitude is that of other units in more than half of the frames that have any.

    - energies that are all-electron energies in Hartree, kcal/mol or kJ/mol, see `thomas_fermi`;
    - root mean square forces above `STEEP_FORCE`, as in kcal/mol/Å.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: of the set, such as "validation ".
    """
    labels = [(atoms, labels_of(atoms, keys)) for atoms in frames]
    shares = np.array([of_one.energy / thomas_fermi(atoms.numbers) for atoms, of_one in labels if of_one.energy])
    found = [
        f"the energies of the {kind}frames are as large as those of all their electrons are in {unit}. Are they in eV?"
        for unit, times in HARTREE_IN.items()
        if len(shares) and np.mean(np.abs(shares / times - 1.0) < THOMAS_FERMI_ERROR) > 0.5
    ]
    sizes = [np.sqrt(np.square(of_one.forces).mean()) for _, of_one in labels if of_one.forces is not None]
    if sizes and (median := float(np.median(sizes))) > STEEP_FORCE:
        found.append(
            f"the root mean square forces of half of the {kind}frames are above {median:.3g} eV/Å. Are they in eV/Å?"
        )
    return found


def thomas_fermi(numbers: NDArray[np.integer]) -> float:
    """`Σ −0.768745 Z^{7/3} + Z²/2 − 0.2699 Z^{5/3}`, the energy of all electrons of free atoms in Hartree.

    Within 1 % from carbon on (Englert and Schwinger, Phys. Rev. A 32, 26, 1985).
    """
    z = numbers.astype(np.float64)
    return float(np.sum(-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)))
