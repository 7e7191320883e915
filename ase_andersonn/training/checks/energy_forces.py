"""Consistency of energies and forces, by finite differences between neighbouring frames of the training set.

Between two geometries `x₁`, `x₂` of the same atoms the energy changes by the work done against the forces,

    W = −½ (F₁ + F₂) · (x₂ − x₁),    ΔE = W + O(|Δx|³),

with the trapezoidal rule. Molecules are superimposed first, since the energy is invariant under rotation. Expected are

- a slope of `ΔE` against `W` of 1 for close pairs; it is a ratio of units where energies or forces are not in eV and
  eV/Å, and negative where the forces are gradients;
- for more distant pairs, where the rule is rough, changes and works of one magnitude and in one order;
- for every pair `|ΔE|` below `(½ (|F₁| + |F₂|) + ½ K |Δx|) |Δx|`, with a stiffness `K` above that of most bonds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.stats import spearmanr

from ase_andersonn.training.data.labels import LabelKeys

from .pairs import SLOPE_RANGE, Floats, LabelledFrame, ahead_of, groups_of, work_of_forces

MAX_DISPLACEMENT_FOR_SLOPE, MAX_DISPLACEMENT = 0.25, 0.5
"""Å; root mean square displacement up to which the trapezoidal rule is accurate, and right in magnitude.

No single atom may move more than twice as far: one that hops to another site crosses a barrier.
"""
MIN_CORRELATION_FOR_SLOPE = 0.8
"""Absolute correlation of changes and works of close pairs from which their slope has a meaning."""
MAX_FRAMES = 5000
"""Frames that are compared with those after them."""
MIN_PAIRS, MIN_PAIRS_FOR_RANK = 10, 30
"""Pairs from which slope and magnitudes are judged, and the rank correlation."""
MAGNITUDE_RANGE = (0.15, 5.0)
"""Median energy change over median work that is accepted; 0.4 to 1.5 in molecular dynamics, liquids included."""
MIN_RANK_CORRELATION = 0.25
"""Rank correlation of changes and works that is accepted; 0.5 to 1 for consistent labels."""
STIFFNESS = 5.0
"""K, eV/Å²."""
BOUND_TOLERANCE = 2.0
"""Factor by which a change may exceed the bound."""
ENERGY_NOISE = 1e-3
"""eV/atom; smaller differences are those of converged calculations."""
RELAXED_FORCE = 0.05
"""eV/Å; between relaxed geometries, with forces below this, forces contain no information on the barriers."""
SAME_POSITION = 1e-6
"""Å; displacements up to this are none."""
MAX_NAMED = 3
"""Frames that a warning names."""


@dataclass(frozen=True)
class Pair:
    """Two frames of the same atoms.

    Attributes:
        first: its index in the set.
        second: likewise.
        distance: root mean square displacement, Å.
        largest: displacement of a single atom, at most, Å.
        change: of the energy from the first to the second, eV.
        work: against the forces by the trapezoidal rule, eV.
        bound: of the change, eV.
        relaxed: whether the forces on the atoms that moved are below `RELAXED_FORCE` in both and not all zero.
    """

    first: int
    second: int
    distance: float
    largest: float
    change: float
    work: float
    bound: float
    relaxed: bool


def check_energy_forces(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> list[str]:
    """Warnings of energies that do not change from frame to frame by the work of the forces.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: of the set, such as "validation ".
    """
    groups = groups_of(frames, keys, _geometry)
    every = max(sum(map(len, groups)) // MAX_FRAMES, 1)
    found = (pair for group in groups for pair in (*_nearest_pairs(group, every), *_repeated(group)))
    pairs = list({(pair.first, pair.second): pair for pair in found}.values())
    disagreement = _wrong_slope(pairs) or _wrong_magnitude(pairs) or _wrong_order(pairs)
    if disagreement:
        return [
            f"energies and forces of the {kind}frames contradict each other: from frame to nearest frame, of "
            f"{disagreement}. Are the forces minus the gradients of these energies, of the same frames, energies in "
            "eV, forces in eV/Å and positions in Å?"
        ]
    return _jumps(pairs, kind)


def _geometry(frame: LabelledFrame) -> bytes:
    """Equal for frames of the same atoms in the same cell."""
    return b"".join(x.tobytes() for x in (frame.atoms.numbers, frame.atoms.cell.array, frame.atoms.pbc))


def _wrong_slope(pairs: Sequence[Pair]) -> str:
    limit = MAX_DISPLACEMENT_FOR_SLOPE
    change, work = _columns([pair for pair in pairs if pair.distance <= limit and pair.largest <= 2.0 * limit])
    size = float(np.sqrt((change @ change) * (work @ work)))
    if len(change) < MIN_PAIRS or not size or abs(change @ work) < MIN_CORRELATION_FOR_SLOPE * size:
        return ""
    slope = float(change @ work / (work @ work))
    if SLOPE_RANGE[0] < slope < SLOPE_RANGE[1]:
        return ""
    return f"{len(change)} pairs, the energy changes by {slope:.3g} times the work of the forces"


def _wrong_magnitude(pairs: Sequence[Pair]) -> str:
    change, work = np.abs(_displaced(pairs))
    if len(change) < MIN_PAIRS:
        return ""
    of_change, of_work = float(np.median(change)), float(np.median(work))
    in_range = MAGNITUDE_RANGE[0] * of_work <= of_change <= MAGNITUDE_RANGE[1] * of_work
    if in_range or max(of_change, of_work) < ENERGY_NOISE:
        return ""
    return f"{len(change)} pairs, the energy changes by {of_change:.3g} eV, the forces' work is {of_work:.3g} (medians)"


def _wrong_order(pairs: Sequence[Pair]) -> str:
    change, work = _displaced(pairs)
    if len(change) < MIN_PAIRS_FOR_RANK or not change.any() or not work.any():
        return ""
    rank = float(spearmanr(change, work).statistic)
    if rank >= MIN_RANK_CORRELATION:
        return ""
    return f"{len(change)} pairs, the energy does not change as the forces' work does (rank correlation {rank:.2f})"


def _displaced(pairs: Sequence[Pair]) -> Floats:
    return _columns([pair for pair in pairs if pair.distance > SAME_POSITION and not pair.relaxed])


def _columns(pairs: Sequence[Pair]) -> Floats:
    """Changes and works [2, n_pairs], eV."""
    return np.array([(pair.change, pair.work) for pair in pairs]).reshape(-1, 2).T


def _jumps(pairs: Sequence[Pair], kind: str) -> list[str]:
    jumps = sorted((pair for pair in pairs if abs(pair.change) > pair.bound), key=lambda pair: -abs(pair.change))
    if not jumps:
        return []
    named = "; ".join(
        f"{p.first} and {p.second}, {p.distance:.2g} Å apart ({p.change:+.3g} eV)" for p in jumps[:MAX_NAMED]
    )
    more = "; …" if len(jumps) > MAX_NAMED else ""
    return [
        f"of {len(pairs)} pairs of {kind}frames of the same atoms near each other, {len(jumps)} differ more in energy "
        f"than forces could make them: frames {named}{more}, counted from 0. Did these calculations converge, and with "
        "the same settings?"
    ]


def _nearest_pairs(group: Sequence[LabelledFrame], every: int) -> Iterator[Pair]:
    """Every so many-th frame with the nearest of those after it, if that is within `MAX_DISPLACEMENT`."""
    positions = np.array([frame.atoms.positions for frame in group])
    forces = np.array([frame.forces for frame in group])
    for k in range(0, len(group) - 1, every):
        frame = group[k]
        superimpose = _minimum_image if frame.atoms.pbc.any() else _aligned
        ahead = ahead_of(k, len(frame.atoms))
        moved, their_forces = superimpose(frame.atoms, positions[ahead], forces[ahead])
        lengths = np.linalg.norm(moved, axis=-1)
        distance = np.sqrt(np.square(lengths).mean(-1))
        nearest = int(distance.argmin())
        if distance[nearest] <= MAX_DISPLACEMENT and lengths[nearest].max() <= 2.0 * MAX_DISPLACEMENT:
            yield _pair(frame, group[k + 1 + nearest], moved[nearest], their_forces[nearest])


def _repeated(group: Sequence[LabelledFrame]) -> Iterator[Pair]:
    """Frames of exactly the same geometry, each with the first."""
    known: dict[bytes, LabelledFrame] = {}
    for frame in group:
        before = known.setdefault(frame.atoms.positions.tobytes(), frame)
        if before is not frame:
            yield _pair(before, frame, np.zeros_like(frame.forces), frame.forces)


def _pair(first: LabelledFrame, second: LabelledFrame, moved: Floats, second_forces: Floats) -> Pair:
    lengths = np.linalg.norm(moved, axis=-1)
    step, mobile = float(np.linalg.norm(lengths)), lengths > SAME_POSITION  # fixed atoms may have any forces
    sizes = [float(np.linalg.norm(forces[mobile])) for forces in (first.forces, second_forces)]
    return Pair(
        first.index,
        second.index,
        step / len(moved) ** 0.5,
        float(lengths.max()),
        second.energy - first.energy,
        work_of_forces(first.forces, second_forces, moved),
        BOUND_TOLERANCE * 0.5 * (sum(sizes) + STIFFNESS * step) * step + ENERGY_NOISE * len(moved),
        0.0 < max(sizes) < RELAXED_FORCE * (3 * int(mobile.sum())) ** 0.5,
    )


def _minimum_image(atoms: Atoms, positions: Floats, forces: Floats) -> tuple[Floats, Floats]:
    """Displacements of other frames by the nearest images [n_frames, n_atoms, 3], and the other frames' forces."""
    moved = positions - atoms.positions
    cell = atoms.cell.complete()
    fractional = np.linalg.solve(cell.T, moved.reshape(-1, 3).T).T.reshape(moved.shape)
    return moved - np.where(atoms.pbc, fractional.round(), 0.0) @ cell.array, forces


def _aligned(atoms: Atoms, positions: Floats, forces: Floats) -> tuple[Floats, Floats]:
    """As `_minimum_image`, of frames rotated by `argmin_R Σ |x'_i R − x_i|²` (Kabsch), with their forces."""
    here = atoms.positions - atoms.positions.mean(0)
    there = positions - positions.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(there, 1, 2) @ here)
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]  # a rotation, never a mirror
    rotation = u @ vt
    return there @ rotation - here, forces @ rotation
