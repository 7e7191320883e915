"""Do energies and forces contradict each other? Frames that are near each other know it before any training.

Between two geometries `x₁`, `x₂` of the same atoms the energy changes by the work done against the forces,

    W = −½ (F₁ + F₂) · (x₂ − x₁),    ΔE = W + O(|Δx|³),

with the trapezoidal rule. Molecules are turned onto each other before, as the energy knows no orientation. Of pairs,

- the slope of `ΔE` against `W` is 1 for near ones, `eV / unit` of the energies over that of the forces where either is
  in others, and negative where the forces are gradients;
- farther apart the rule is rough, and still both are of one size and of one order;
- no single pair's energies differ by more than `(½ (|F₁| + |F₂|) + ½ K |Δx|) |Δx|`, with a stiffness `K` beyond most.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ase_andersonn.training.data.labels import LabelKeys, labels_of

logger = logging.getLogger(__name__)

NEAR, FAR = 0.25, 0.5
"""Å; root mean square displacement of an atom up to which the trapezoidal rule is trusted, and is of the right size.

No atom alone moves more than twice as far, as one that hops does while all others stay.
"""
ALIKE = 0.8
"""Correlation of near changes and works, up or down, from which they are the same but for a factor."""
SAMPLE, AHEAD, AHEAD_ATOMS = 5000, 100, 50_000
"""Frames that are looked at; how many of the same atoms after it each is compared with, of how many atoms."""
FEWEST, FOR_THE_ORDER = 10, 30
"""Pairs from which the slope and the sizes are known, and the order."""
RIGHT = (0.6, 1.6)
"""Slopes that are no contradiction; Hartree and Hartree/bohr with positions in Å give 1.9, or with both in bohr 0.5."""
OF_ONE_SIZE = (0.15, 5.0)
"""Median change of the energy over median work; of molecular dynamics, liquids too, 0.4 to 1.5."""
IN_ORDER = 0.25
"""Rank correlation of changes and works; of labels that belong together 0.5 to 1."""
STIFF = 5.0
"""eV/Å²."""
TIMES = 2.0
"""The bound above is passed by more than this."""
NOISE = 1e-3
"""eV/atom; energies that differ by less are the same."""
AT_REST = 0.05
"""eV/Å; between relaxed geometries, whose forces are below this, there are barriers that no force tells of."""
SAME = 1e-6
"""Å; up to this far apart no energy changes."""
MOST_NAMED = 3


@dataclass(frozen=True)
class Labelled:
    """A frame with energy and forces; `index` in the set."""

    index: int
    atoms: Atoms
    energy: float
    forces: NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two frames of the same atoms, as far apart as `distance` (root mean square, Å).

    Attributes:
        first: its index in the set.
        second: likewise.
        distance: Å.
        largest: how far a single atom is from itself, Å.
        change: of the energy from the first to the second, eV.
        work: against the forces by the trapezoidal rule, eV.
        bound: of the change, eV.
        at_rest: whether the forces on the atoms that moved are below `AT_REST` in both and not all zero.
    """

    first: int
    second: int
    distance: float
    largest: float
    change: float
    work: float
    bound: float
    at_rest: bool


def check_energy_forces(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> None:
    """Of energies that do not change by the work of the forces from frame to frame.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: what they are called, as "validation ".
    """
    alike = list(_alike(frames, keys))
    every = max(sum(map(len, alike)) // SAMPLE, 1)
    found = (pair for like in alike for pair in (*_pairs(like, every), *_repeated(like)))
    pairs = list({(pair.first, pair.second): pair for pair in found}.values())
    said = _by_the_slope(pairs) or _by_the_sizes(pairs) or _by_the_order(pairs)
    if said:
        logger.warning(
            "energies and forces of the %sframes contradict each other: from frame to nearest frame, of %s. Are the "
            "forces minus the gradients of these energies, of the same frames, energies in eV, forces in eV/Å and "
            "positions in Å?",
            kind,
            said,
        )
    else:
        _warn_of_jumps(pairs, kind)


def _by_the_slope(pairs: Sequence[Pair]) -> str:
    change, work = _columns([pair for pair in pairs if pair.distance <= NEAR and pair.largest <= 2.0 * NEAR])
    size = float(np.sqrt((change @ change) * (work @ work)))
    if len(change) < FEWEST or not size or abs(change @ work) < ALIKE * size:
        return ""
    slope = float(change @ work / (work @ work))
    if RIGHT[0] < slope < RIGHT[1]:
        return ""
    return f"{len(change)} pairs, the energy changes by {slope:.3g} times the work of the forces"


def _by_the_sizes(pairs: Sequence[Pair]) -> str:
    change, work = np.abs(_moving(pairs))
    if len(change) < FEWEST or max(of_change := float(np.median(change)), of_work := float(np.median(work))) < NOISE:
        return ""
    if OF_ONE_SIZE[0] * of_work <= of_change <= OF_ONE_SIZE[1] * of_work:
        return ""
    return f"{len(change)} pairs, the energy changes by {of_change:.3g} eV, the forces' work is {of_work:.3g} (medians)"


def _by_the_order(pairs: Sequence[Pair]) -> str:
    change, work = _moving(pairs)
    if len(change) < FOR_THE_ORDER or not change.any() or not work.any():
        return ""
    rank = float(spearmanr(change, work).statistic)
    if rank >= IN_ORDER:
        return ""
    return f"{len(change)} pairs, the energy does not change as the forces' work does (rank correlation {rank:.2f})"


def _moving(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return _columns([pair for pair in pairs if pair.distance > SAME and not pair.at_rest])


def _columns(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return np.array([(pair.change, pair.work) for pair in pairs]).reshape(-1, 2).T


def _warn_of_jumps(pairs: Sequence[Pair], kind: str) -> None:
    jumps = sorted((pair for pair in pairs if abs(pair.change) > pair.bound), key=lambda pair: -abs(pair.change))
    if not jumps:
        return
    named = "; ".join(
        f"{p.first} and {p.second}, {p.distance:.2g} Å apart ({p.change:+.3g} eV)" for p in jumps[:MOST_NAMED]
    )
    logger.warning(
        "of %d pairs of %sframes of the same atoms near each other, %d differ more in energy than forces could make "
        "them: frames %s%s, counted from 0. Did these calculations end well, and with the same settings?",
        len(pairs),
        kind,
        len(jumps),
        named,
        "; …" if len(jumps) > MOST_NAMED else "",
    )


def _alike(frames: Sequence[Atoms], keys: LabelKeys) -> Iterator[list[Labelled]]:
    """Frames of the same atoms in the same cell that have energies and forces."""
    groups: dict[bytes, list[Labelled]] = defaultdict(list)
    for index, atoms in enumerate(frames):
        labels = labels_of(atoms, keys)
        if labels.energy is not None and labels.forces is not None:
            same = b"".join(array.tobytes() for array in (atoms.numbers, atoms.cell.array, atoms.pbc))
            groups[same].append(Labelled(index, atoms, labels.energy, labels.forces))
    yield from groups.values()


def _pairs(like: Sequence[Labelled], every: int) -> Iterator[Pair]:
    """Of every so many-th frame and the nearest of those ahead of it, if that is within `FAR`."""
    n_ahead = ahead_of(len(like[0].atoms))
    positions = np.array([one.atoms.positions for one in like])
    forces = np.array([one.forces for one in like])
    for k in range(0, len(like) - 1, every):
        one = like[k]
        match = _periodic if one.atoms.pbc.any() else _turned
        ahead = slice(k + 1, k + 1 + n_ahead)
        moved, their_forces = match(one.atoms, positions[ahead], forces[ahead])
        lengths = np.linalg.norm(moved, axis=-1)
        distance = np.sqrt(np.square(lengths).mean(-1))
        nearest = int(distance.argmin())
        if distance[nearest] <= FAR and lengths[nearest].max() <= 2.0 * FAR:
            yield _pair(one, like[k + 1 + nearest], moved[nearest], their_forces[nearest])


def ahead_of(n_atoms: int) -> int:
    """How many frames a frame of so many atoms is compared with."""
    return min(max(AHEAD_ATOMS // n_atoms, 1), AHEAD)


def _repeated(like: Sequence[Labelled]) -> Iterator[Pair]:
    """Of each geometry and the one before that is the very same."""
    known: dict[bytes, Labelled] = {}
    for one in like:
        before = known.setdefault(one.atoms.positions.tobytes(), one)
        if before is not one:
            yield _pair(before, one, np.zeros_like(one.forces), one.forces)


def _pair(one: Labelled, other: Labelled, moved: NDArray[np.float64], other_forces: NDArray[np.float64]) -> Pair:
    lengths = np.linalg.norm(moved, axis=-1)
    step, mobile = float(np.linalg.norm(lengths)), lengths > SAME  # others may be held, with whatever forces
    sizes = [float(np.linalg.norm(forces[mobile])) for forces in (one.forces, other_forces)]
    return Pair(
        one.index,
        other.index,
        step / len(moved) ** 0.5,
        float(lengths.max()),
        other.energy - one.energy,
        -0.5 * float(np.sum((one.forces + other_forces) * moved)),
        TIMES * 0.5 * (sum(sizes) + STIFF * step) * step + NOISE * len(moved),
        0.0 < max(sizes) < AT_REST * (3 * int(mobile.sum())) ** 0.5,
    )


def _periodic(
    atoms: Atoms, positions: NDArray[np.float64], forces: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far the atoms are from those of other frames [n, n_atoms, 3], by the nearest image; the others' forces."""
    moved = positions - atoms.positions
    cell = atoms.cell.complete()
    turns = np.linalg.solve(cell.T, moved.reshape(-1, 3).T).T.reshape(moved.shape)
    return moved - np.where(atoms.pbc, turns.round(), 0.0) @ cell.array, forces


def _turned(
    atoms: Atoms, positions: NDArray[np.float64], forces: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `_periodic`, of frames turned onto these atoms, `min_R Σ |x'_i R − x_i|²` (Kabsch), with their forces."""
    here = atoms.positions - atoms.positions.mean(0)
    there = positions - positions.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(there, 1, 2) @ here)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]  # a rotation, never a mirror
    turn = u @ vt
    return there @ turn - here, forces @ turn
