"""Do energies and forces contradict each other? Frames that are near each other know it before any training.

Between two geometries `x₁`, `x₂` the energy changes by the work of the forces, with the trapezoidal rule by

    ΔE = −½ (F₁ + F₂) · (x₂ − x₁) + O(|Δx|³).

The slope of `ΔE` against that work is 1, `eV / unit` of the energies over that of the forces where either is in others,
and negative where the forces are gradients.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .frames import LabelKeys, labels_of

logger = logging.getLogger(__name__)

NEAR = 0.25
"""Å; root mean square displacement of an atom up to which the trapezoidal rule is trusted."""
ALIKE = 0.8
"""Correlation of both, up or down, from which they are the same but for a factor; below, single frames decide."""
SAMPLE = 100
"""Frames of one composition and cell that are compared with each other."""
FEWEST = 10
"""Pairs from which the slope is known."""
RIGHT = (0.6, 1.6)
"""Slopes that are no contradiction; Hartree and Hartree/bohr with positions in Å give 1.9, or with both in bohr 0.5."""

Labelled = tuple[Atoms, float, NDArray[np.float64]]
"""A frame, its energy and forces."""


def warn_of_contradictions(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of energies that do not change by the work of the forces from frame to frame.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    changes = [change for like in _alike(frames, keys) for change in _changes(like)]
    if len(changes) < FEWEST:
        return
    energy, work = np.array(changes).T
    size = float(np.sqrt((energy @ energy) * (work @ work)))
    if not size or abs(energy @ work) < ALIKE * size:
        return
    slope = float(energy @ work / (work @ work))
    if not RIGHT[0] < slope < RIGHT[1]:
        logger.warning(
            "energies and forces of the %sframes contradict each other: from frame to nearest frame, of %d pairs, the "
            "energy changes by %.3g times the work of the forces. Are the forces minus the gradients of these "
            "energies, energies in eV, forces in eV/Å and positions in Å?",
            kind,
            len(changes),
            slope,
        )


def _alike(frames: Sequence[Atoms], keys: LabelKeys) -> Iterator[list[Labelled]]:
    """Frames of the same atoms in the same cell that have energies and forces, at most `SAMPLE` of each."""
    groups: dict[bytes, list[Labelled]] = defaultdict(list)
    for atoms in frames:
        group = groups[b"".join(array.tobytes() for array in (atoms.numbers, atoms.cell.array, atoms.pbc))]
        if len(group) < SAMPLE:
            labels = labels_of(atoms, keys)
            if labels.energy is not None and labels.forces is not None:
                group.append((atoms, labels.energy, labels.forces))
    yield from groups.values()


def _changes(like: Sequence[Labelled]) -> Iterator[tuple[float, float]]:
    """Of each frame and the nearest after it: how the energy changes, and the work done against the forces, eV."""
    positions = np.array([atoms.positions for atoms, _, _ in like])
    for k, (atoms, energy, forces) in enumerate(like[:-1]):
        moved = positions[k + 1 :] - positions[k]
        if atoms.pbc.any():
            turns = np.linalg.solve(atoms.cell.complete().T, moved.reshape(-1, 3).T).T.reshape(moved.shape)
            moved -= np.where(atoms.pbc, turns.round(), 0.0) @ atoms.cell.complete().array
        distance = np.sqrt(np.square(moved).sum(-1).mean(-1))
        nearest = int(distance.argmin())
        if not 0.0 < distance[nearest] <= NEAR:
            continue
        _, other_energy, other_forces = like[k + 1 + nearest]
        yield other_energy - energy, -0.5 * float(np.sum((forces + other_forces) * moved[nearest]))
