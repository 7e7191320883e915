"""Do energies and stresses contradict each other? Cells that are strained a little know it before any training.

Between two frames of the same atoms whose cells `h₁`, `h₂ = h₁ (1 + ε)` differ by a small strain, the energy changes by
the work of the stresses and, where the atoms moved besides, by that done against the forces,

    ΔE ≈ ½ (V₁ σ₁ + V₂ σ₂) : ε − ½ (F₁ + F₂) · Δx,    Δx = (s₂ − s₁) ½ (h₁ + h₂),

with fractional coordinates `s`. The slope of `ΔE` besides the forces' work against that of the stresses is 1; it is
negative for a stress that is positive under compression, and the unit over eV/Å³ where the stress is in another.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .contradictions import ahead_of
from .frames import LabelKeys, labels_of

logger = logging.getLogger(__name__)

STRAIN = (1e-4, 0.12)
"""Largest component of the strains that are compared: below they are none, above the trapezoidal rule is rough."""
NEAR = 0.25
"""Å; root mean square displacement of an atom besides the strain, at most."""
ALIKE = 0.5
"""Correlation, up or down, from which both are the same but for a factor and what the forces' work leaves over."""
FEWEST = 20
"""Pairs from which the slope is known."""
RIGHT = (0.2, 5.0)
"""Slopes that are no contradiction; kbar and GPa are hundreds off."""


@dataclass(frozen=True)
class Labelled:
    """A periodic frame with all labels."""

    atoms: Atoms
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]


def warn_of_stresses(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of stresses whose work is not how the energy changes from cell to cell.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    pairs = [pair for like in _alike(frames, keys) for pair in _pairs(like)]
    if len(pairs) < FEWEST:
        return
    rest, work = np.array(pairs).T
    size = float(np.sqrt((rest @ rest) * (work @ work)))
    if not size or abs(rest @ work) < ALIKE * size:
        return
    slope = float(rest @ work / (work @ work))
    if not RIGHT[0] < slope < RIGHT[1]:
        logger.warning(
            "energies and stresses of the %sframes contradict each other: from frame to nearest frame in another cell, "
            "of %d pairs, the energy changes by %.3g times the work of the stress. Is the stress (1/V) dE/dε, positive "
            "under tension, and in eV/Å³?",
            kind,
            len(pairs),
            slope,
        )


def _alike(frames: Sequence[Atoms], keys: LabelKeys) -> Iterator[list[Labelled]]:
    groups: dict[bytes, list[Labelled]] = defaultdict(list)
    for atoms in frames:
        of_one = labels_of(atoms, keys)
        if of_one.energy is not None and of_one.forces is not None and of_one.stress is not None:
            groups[atoms.numbers.tobytes()].append(Labelled(atoms, of_one.energy, of_one.forces, of_one.stress))
    yield from groups.values()


def _pairs(like: Sequence[Labelled]) -> Iterator[tuple[float, float]]:
    """Of each frame and the nearest after it: the energy's change besides the forces' work, and the stresses', eV."""
    cells = np.array([one.atoms.cell.array for one in like])
    fractional = np.array([one.atoms.get_scaled_positions(wrap=False) for one in like])
    for k, one in enumerate(like[:-1]):
        ahead = slice(k + 1, k + 1 + ahead_of(len(one.atoms)))
        strain = np.linalg.solve(cells[k], cells[ahead]) - np.eye(3)
        turned = fractional[ahead] - fractional[k]
        turned -= turned.round()
        moved = (turned - turned.mean(1, keepdims=True)) @ (0.5 * (cells[k] + cells[ahead]))
        distance = np.sqrt(np.square(moved).sum(-1).mean(-1))
        largest = np.abs(strain).max((1, 2))
        allowed = (largest > STRAIN[0]) & (largest < STRAIN[1]) & (distance < NEAR)
        if not allowed.any():
            continue
        nearest = int(np.where(allowed, largest + distance, np.inf).argmin())
        other = like[k + 1 + nearest]
        volumes = one.atoms.cell.volume * one.stress + other.atoms.cell.volume * other.stress
        against_forces = -0.5 * float(np.sum((one.forces + other.forces) * moved[nearest]))
        yield other.energy - one.energy - against_forces, 0.5 * float(np.sum(volumes * strain[nearest]))
