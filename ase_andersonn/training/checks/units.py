"""Are lengths and labels in Å, eV and eV/Å? Most other units are far off what they are in any material.

Of stresses see `stress_contradictions`.
"""

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.units import Hartree, kcal, kJ, mol
from numpy.typing import NDArray

from ase_andersonn.structures.convert import TOO_CLOSE, check_lengths, touching_shares
from ase_andersonn.structures.neighbors import Edges, neighbor_edges
from ase_andersonn.training.data.labels import LabelKeys, labels_of

logger = logging.getLogger(__name__)

APART = 1.35
"""Of the sum of the covalent radii; the nearest neighbour of most atoms is nearer, but in noble gases."""
SAMPLE = 50
"""Frames whose distances are looked at."""
STEEP = 10.0
"""eV/Å, root mean square; half of all frames are hardly ever so far from equilibrium."""
ALL_ELECTRON = {"Hartree": 1.0, "kcal/mol": Hartree / (kcal / mol), "kJ/mol": Hartree / (kJ / mol)}
"""Hartree in units that programs without pseudopotentials print."""
AS_ATOMS = 0.03
"""Share by which the energy of all electrons differs from that of Thomas-Fermi atoms from carbon to bromine at most.

Of hydrogen alone, and of the heaviest atoms, it differs by more, and nothing is told of them.
"""


def check_lengths_of(frames: Sequence[Atoms], kind: str = "") -> None:
    """Refuse frames most of which have atoms closer than any are, as in nm; warn where hardly any touch, as in bohr.

    Args:
        frames: of one set.
        kind: what they are called, as "validation ".

    Raises:
        ValueError: for such frames.
    """
    sample = frames[:: max(len(frames) // SAMPLE, 1)]
    complaints = [complaint for atoms in sample if (complaint := _too_close(atoms))]
    if 2 * len(complaints) > len(sample):
        raise ValueError(
            f"{len(complaints)} of {len(sample)} {kind}frames hold atoms too close together: {complaints[0]}"
        )
    several = [atoms for atoms in sample if len(atoms) > 1 or atoms.pbc.any()]
    apart = [atoms for atoms in several if 2 * _touching(atoms) < len(atoms)]
    if 2 * len(apart) > len(several):
        logger.warning(
            "in %d of %d %sframes most atoms have no other nearer than %g times the sum of their covalent radii, as in "
            "%s. Are they that far apart, as in noble gases, or are the lengths not in Å?",
            len(apart),
            len(several),
            kind,
            APART,
            apart[0].get_chemical_formula(),
        )


def _too_close(atoms: Atoms) -> str:
    try:
        check_lengths(atoms.numbers, _edges(atoms, TOO_CLOSE))
    except ValueError as error:
        return f"{atoms.get_chemical_formula()}: {error}"
    return ""


def _touching(atoms: Atoms) -> int:
    """Atoms that have another nearer than `APART`."""
    edges = _edges(atoms, APART)
    return len(np.unique(edges.center[touching_shares(atoms.numbers, edges) < APART]))


def _edges(atoms: Atoms, share: float) -> Edges:
    """All pairs up to a share of the sum of their covalent radii, and others."""
    radius = 2.0 * share * float(covalent_radii[atoms.numbers].max())
    return neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, radius)


def warn_of_units(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of labels whose size is that of other units in more than half of the frames that have any.

    - energies that are those of all electrons in Hartree, kcal/mol or kJ/mol, see `thomas_fermi`;
    - root mean square forces above `STEEP`, as in kcal/mol/Å.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    labels = [(atoms, labels_of(atoms, keys)) for atoms in frames]
    shares = np.array([of_one.energy / thomas_fermi(atoms.numbers) for atoms, of_one in labels if of_one.energy])
    for unit, times in ALL_ELECTRON.items():
        if len(shares) and np.mean(np.abs(shares / times - 1.0) < AS_ATOMS) > 0.5:
            text = (
                "the energies of the %sframes are as large as those of all their electrons are in %s. Are they in eV?"
            )
            logger.warning(text, kind, unit)
    sizes = [np.sqrt(np.square(of_one.forces).mean()) for _, of_one in labels if of_one.forces is not None]
    if sizes and (median := float(np.median(sizes))) > STEEP:
        text = "the root mean square forces of half of the %sframes are above %.3g eV/Å. Are they in eV/Å?"
        logger.warning(text, kind, median)


def thomas_fermi(numbers: NDArray[np.integer]) -> float:
    """`Σ −0.768745 Z^{7/3} + Z²/2 − 0.2699 Z^{5/3}`, the energy of all electrons of free atoms in Hartree.

    Within 1 % from carbon on (Englert and Schwinger, Phys. Rev. A 32, 26, 1985).
    """
    z = numbers.astype(np.float64)
    return float(np.sum(-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)))
