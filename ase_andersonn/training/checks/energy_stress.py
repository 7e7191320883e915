"""Do energies, forces and stresses contradict each other from cell to cell? Strained frames know it before training.

Between two frames of the same atoms whose cells `h₁`, `h₂ = h₁ (1 + ε)` differ by a small strain, the energy changes by
the work of the stresses and, where the atoms moved besides, by that done against the forces,

    ΔE ≈ ½ (V₁ σ₁ + V₂ σ₂) : ε − ½ (F₁ + F₂) · Δx,    Δx = (s₂ − s₁) ½ (h₁ + h₂),

with fractional coordinates `s`. In the fit `ΔE ≈ b W_σ + a W_F` to many pairs `a` and `b` are 1. They are negative for
stresses that are positive under compression and for forces that are gradients, else a ratio of units. Shear components
in the order of another program, which mixes them up, leave more of `ΔE` over than these in the right order.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.units import GPa
from numpy.typing import NDArray

from ase_andersonn.training.data.labels import LabelKeys, labels_of

from .energy_forces import RIGHT, ahead_of

logger = logging.getLogger(__name__)

STRAIN = (1e-4, 0.12)
"""Largest component of the strains that are compared: below they are none, above the trapezoidal rule is rough."""
NEAR = 0.25
"""Å; root mean square displacement of an atom besides the strain, at most."""
FEWEST = 20
"""Pairs from which the fit is known."""
FORCES_ALIKE, STRESS_ALIKE = 0.8, 0.5
"""Partial correlation, up or down, from which changes are those of one kind of work but for a factor."""
CLEAR = 0.9
"""Such a correlation from which the factor is known well: to `RIGHT`, else to `ROUGH`."""
ROUGH = (0.2, 5.0)
"""Slopes that are no contradiction; kbar and GPa are hundreds off."""
SHEARS = ([1, 0, 0], [2, 2, 1])
"""Where yz, xz and xy stand in a matrix."""
BETTER = 0.5
"""What another order of the shears leaves over, over what this one does, from which it is the right one."""
STRONG = 0.3
"""eV/Å³, 48 GPa; hardly anyone strains half of all frames so much."""


@dataclass(frozen=True)
class Labelled:
    """A frame with energy and forces, and with its stress where that is known."""

    atoms: Atoms
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None


@dataclass(frozen=True)
class Pair:
    """Two frames of the same atoms in cells that differ by a strain.

    Attributes:
        change: of the energy, eV.
        against_forces: work against the forces, eV.
        tension: mean `V σ`, eV [3, 3].
        strain: [3, 3].
    """

    change: float
    against_forces: float
    tension: NDArray[np.float64]
    strain: NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """`ΔE ≈ factor W` besides the other kind of work, and the partial correlation of both."""

    factor: float
    correlation: float

    def wrong(self, alike: float) -> bool:
        """Whether the factor is known and not 1."""
        low, high = RIGHT if abs(self.correlation) > CLEAR else ROUGH
        return abs(self.correlation) > alike and not low < self.factor < high


def check_energy_stress(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of energies that do not change from cell to cell by the work of stresses and forces, and of doubtful stresses.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    pairs = [pair for like in _alike(frames, keys) for pair in _pairs(like)]
    forces, stress = _fits(pairs)
    if forces.wrong(FORCES_ALIKE):
        _warn(
            kind, len(pairs), "forces", forces.factor, "Are the forces minus the gradients of these energies, in eV/Å?"
        )
    if stress.wrong(STRESS_ALIKE):
        _warn(
            kind, len(pairs), "stresses", stress.factor, "Are they (1/V) dE/dε, positive under tension, and in eV/Å³?"
        )
    elif order := _order_of_shears(pairs):
        logger.warning(
            "the energies of the %sframes change from cell to cell as if the shear components of the stress, which are "
            "read as yz, xz, xy, were %s. Was it written in the order of another program?",
            kind,
            order,
        )
    elif abs(stress.correlation) < STRESS_ALIKE:
        _warn_of_size(frames, keys, kind)


def _warn(kind: str, n_pairs: int, what: str, factor: float, question: str) -> None:
    logger.warning(
        "energies and %s of the %sframes contradict each other: from frame to nearest frame in another cell, of %d "
        "pairs, the energy changes by %.3g times the work of the %s. %s",
        what,
        kind,
        n_pairs,
        factor,
        what,
        question,
    )


def _warn_of_size(frames: Sequence[Atoms], keys: LabelKeys, kind: str) -> None:
    """Of stresses that are all zero, or above `STRONG` in half of the frames."""
    sizes = [np.abs(stress).max() for atoms in frames if (stress := labels_of(atoms, keys).stress) is not None]
    if not sizes:
        return
    if len(sizes) >= FEWEST and not any(sizes):
        logger.warning(
            "the stresses of all %d %sframes that have any are exactly zero. Were they computed?", len(sizes), kind
        )
    elif (median := float(np.median(sizes))) > STRONG:
        text = "half of the stresses of the %sframes are above %.3g eV/Å³, %.3g GPa. Are they in eV/Å³?"
        logger.warning(text, kind, median, median / GPa)


def _fits(pairs: Sequence[Pair]) -> tuple[Fit, Fit]:
    """Of the forces and of the stresses; without a meaning, and so without correlation, where pairs are few."""
    change = np.array([pair.change for pair in pairs])
    works = np.array([(pair.against_forces, np.sum(pair.tension * pair.strain)) for pair in pairs]).reshape(-1, 2).T
    if len(pairs) < FEWEST or not change.any():
        return Fit(1.0, 0.0), Fit(1.0, 0.0)
    return _partial(change, works[0], works[1]), _partial(change, works[1], works[0])


def _partial(change: NDArray[np.float64], work: NDArray[np.float64], other: NDArray[np.float64]) -> Fit:
    """Both less what the other kind of work explains of them."""
    change, work = (x - (x @ other / (other @ other) if other.any() else 0.0) * other for x in (change, work))
    size = float(np.sqrt((change @ change) * (work @ work)))
    if not size:
        return Fit(1.0, 0.0)
    return Fit(float(change @ work / (work @ work)), float(change @ work) / size)


def _order_of_shears(pairs: Sequence[Pair]) -> str:
    """That in which they explain far more of the energies than in the order given; empty where that is right."""
    if len(pairs) < FEWEST:
        return ""
    shears = np.array([(pair.tension[SHEARS], pair.strain[SHEARS]) for pair in pairs])
    work = np.array([(pair.against_forces, np.sum(pair.tension * pair.strain)) for pair in pairs]).sum(1)
    besides = np.array([pair.change for pair in pairs]) - work + 2.0 * np.sum(shears[:, 0] * shears[:, 1], axis=1)
    orders = [list(order) for order in permutations(range(3))]
    left = [np.linalg.norm(besides - 2.0 * np.sum(shears[:, 0, order] * shears[:, 1], axis=1)) for order in orders]
    best = int(np.argmin(left))
    if left[best] > BETTER * left[0]:
        return ""
    read = [("yz", "xz", "xy")[orders[best].index(k)] for k in range(3)]
    return ", ".join(read)


def _alike(frames: Sequence[Atoms], keys: LabelKeys) -> Iterator[list[Labelled]]:
    """Periodic frames of the same atoms; such with and without stresses apart."""
    groups: dict[tuple[bytes, bool], list[Labelled]] = defaultdict(list)
    for atoms in frames:
        of_one = labels_of(atoms, keys)
        if of_one.energy is not None and of_one.forces is not None and atoms.pbc.any() and atoms.cell.rank == 3:
            same = atoms.numbers.tobytes(), of_one.stress is None
            groups[same].append(Labelled(atoms, of_one.energy, of_one.forces, of_one.stress))
    yield from groups.values()


def _pairs(like: Sequence[Labelled]) -> Iterator[Pair]:
    """Of each frame and the nearest after it."""
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
        yield Pair(
            other.energy - one.energy,
            -0.5 * float(np.sum((one.forces + other.forces) * moved[nearest])),
            0.5 * (_pull(one) + _pull(other)),
            strain[nearest],
        )


def _pull(one: Labelled) -> NDArray[np.float64]:
    """`V σ`, eV; none where it is not known."""
    return np.zeros((3, 3)) if one.stress is None else one.atoms.cell.volume * one.stress
