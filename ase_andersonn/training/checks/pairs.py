"""Pairs of labelled frames of the same atoms, and the work of the forces between them."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_andersonn.training.data.labels import LabelKeys, labels_of

Floats = NDArray[np.float64]

FRAMES_AHEAD, ATOMS_AHEAD = 100, 50_000
"""Later frames of the same atoms that a frame is compared with, and the atoms in them, at most."""
SLOPE_RANGE = (0.6, 1.6)
"""Energy change over work that is accepted; Hartree and Hartree/bohr with positions in Å give 1.9, or in bohr 0.5."""


@dataclass(frozen=True)
class LabelledFrame:
    """A frame with energy and forces, and with its stress where that is known; `index` in the set."""

    index: int
    atoms: Atoms
    energy: float
    forces: Floats
    stress: Floats | None


def groups_of(
    frames: Sequence[Atoms], keys: LabelKeys, signature: Callable[[LabelledFrame], Hashable]
) -> list[list[LabelledFrame]]:
    """Frames with energy and forces in groups of one signature, in their order; the signature None leaves one out."""
    groups: dict[Hashable, list[LabelledFrame]] = defaultdict(list)
    for index, atoms in enumerate(frames):
        labels = labels_of(atoms, keys)
        if labels.energy is not None and labels.forces is not None:
            frame = LabelledFrame(index, atoms, float(labels.energy), labels.forces, labels.stress)
            if (found := signature(frame)) is not None:
                groups[found].append(frame)
    return list(groups.values())


def ahead_of(k: int, n_atoms: int) -> slice:
    """The later frames of a group that frame k is compared with."""
    return slice(k + 1, k + 1 + min(max(ATOMS_AHEAD // n_atoms, 1), FRAMES_AHEAD))


def work_of_forces(first: Floats, second: Floats, displacement: Floats) -> float:
    """`−½ Σ (F₁ + F₂) · Δx`, eV: work against the forces by the trapezoidal rule.

    Args:
        first: forces at the beginning [n_atoms, 3], eV/Å.
        second: forces at the end.
        displacement: Δx [n_atoms, 3], Å.
    """
    return -0.5 * float(np.sum((first + second) * displacement))
