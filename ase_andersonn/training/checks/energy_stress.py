"""Consistency of energies, forces and stresses, by finite differences between frames in strained cells.

Between two frames of the same atoms whose cells `h₁`, `h₂ = h₁ (1 + ε)` differ by a small strain, the energy changes by
the work of the stresses and, where the atoms moved besides, by that done against the forces,

    ΔE ≈ ½ (V₁ σ₁ + V₂ σ₂) : ε − ½ (F₁ + F₂) · Δx,    Δx = (s₂ − s₁) ½ (h₁ + h₂),

with fractional coordinates `s`. In the fit `ΔE ≈ b W_σ + a W_F` to many pairs `a` and `b` are 1. They are negative for
stresses that are positive under compression and for forces that are gradients, else a ratio of units. Shear components
in the order of another program leave a larger residual than the same components in the right order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from ase import Atoms
from ase.units import GPa

from ase_andersonn.training.data.labels import LabelKeys, labels_of

from .pairs import SLOPE_RANGE, Floats, LabelledFrame, ahead_of, groups_of, work_of_forces

STRAIN_RANGE = (1e-4, 0.12)
"""Largest component of the strain between two frames; above it the trapezoidal rule is rough."""
MAX_DISPLACEMENT = 0.25
"""Å; root mean square displacement besides the strain."""
MIN_PAIRS = 20
"""Pairs from which the fit is judged."""
MIN_CORRELATION_FORCES, MIN_CORRELATION_STRESS = 0.8, 0.5
"""Absolute partial correlation from which the slope of this kind of work has a meaning."""
CLEAR_CORRELATION = 0.9
"""Absolute partial correlation from which the slope has to be within `SLOPE_RANGE`, else within the next."""
ROUGH_SLOPE_RANGE = (0.2, 5.0)
"""kbar and GPa give slopes some hundred times off."""
SHEARS = ([1, 0, 0], [2, 2, 1])
"""Rows and columns of yz, xz and xy in a matrix."""
SHEAR_RESIDUAL_SHARE = 0.5
"""Residual of another order of the shear components over that of the given one, from which it is the right one."""
LARGE_STRESS = 0.3
"""eV/Å³, 48 GPa; a median of the largest components above this is rare."""


@dataclass(frozen=True)
class Pair:
    """Two frames of the same atoms in cells that differ by a strain.

    Attributes:
        change: of the energy, eV.
        work: against the forces, eV.
        tension: mean `V σ`, eV [3, 3].
        strain: [3, 3].
    """

    change: float
    work: float
    tension: Floats
    strain: Floats


@dataclass(frozen=True)
class Fit:
    """Slope of the energy change against one kind of work besides the other kind, and their partial correlation."""

    slope: float
    correlation: float

    def is_wrong(self, min_correlation: float) -> bool:
        """Whether the slope has a meaning and is not 1."""
        low, high = SLOPE_RANGE if abs(self.correlation) > CLEAR_CORRELATION else ROUGH_SLOPE_RANGE
        return abs(self.correlation) > min_correlation and not low < self.slope < high


NO_FIT = Fit(1.0, 0.0)


def check_energy_stress(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> list[str]:
    """Warnings of energies that do not change with the cell by the work of stresses and forces, and of odd stresses.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: of the set, such as "validation ".
    """
    pairs = [pair for group in groups_of(frames, keys, _atoms_of_crystal) for pair in _nearest_pairs(group)]
    forces, stress = _fits(pairs)
    found = []
    if forces.is_wrong(MIN_CORRELATION_FORCES):
        question = "Are the forces minus the gradients of these energies, in eV/Å?"
        found.append(_contradiction(kind, len(pairs), "forces", forces.slope, question))
    if stress.is_wrong(MIN_CORRELATION_STRESS):
        question = "Are they (1/V) dE/dε, positive under tension, and in eV/Å³?"
        found.append(_contradiction(kind, len(pairs), "stresses", stress.slope, question))
    elif order := _order_of_shears(pairs):
        found.append(
            f"the energies of the {kind}frames change from cell to cell as if the shear components of the stress, "
            f"which are read as yz, xz, xy, were {order}. Was it written in the order of another program?"
        )
    elif abs(stress.correlation) < MIN_CORRELATION_STRESS:
        found += _odd_magnitude(frames, keys, kind)
    return found


def _contradiction(kind: str, n_pairs: int, label: str, slope: float, question: str) -> str:
    return (
        f"energies and {label} of the {kind}frames contradict each other: from frame to nearest frame in another cell, "
        f"of {n_pairs} pairs, the energy changes by {slope:.3g} times the work of the {label}. {question}"
    )


def _odd_magnitude(frames: Sequence[Atoms], keys: LabelKeys, kind: str) -> list[str]:
    """Warnings of stresses that are all zero, or above `LARGE_STRESS` in half of the frames."""
    sizes = [np.abs(stress).max() for atoms in frames if (stress := labels_of(atoms, keys).stress) is not None]
    if len(sizes) >= MIN_PAIRS and not any(sizes):
        return [f"the stresses of all {len(sizes)} {kind}frames that have any are exactly zero. Were they computed?"]
    if sizes and (median := float(np.median(sizes))) > LARGE_STRESS:
        gpa = median / GPa
        return [
            f"half of the stresses of the {kind}frames are above {median:.3g} eV/Å³, {gpa:.3g} GPa. Are they in eV/Å³?"
        ]
    return []


def _fits(pairs: Sequence[Pair]) -> tuple[Fit, Fit]:
    """Fits of forces and of stresses; `NO_FIT` where pairs are few."""
    change = np.array([pair.change for pair in pairs])
    if len(pairs) < MIN_PAIRS or not change.any():
        return NO_FIT, NO_FIT
    works = np.array([(pair.work, np.sum(pair.tension * pair.strain)) for pair in pairs]).T
    return _partial_fit(change, works[0], works[1]), _partial_fit(change, works[1], works[0])


def _partial_fit(change: Floats, work: Floats, other: Floats) -> Fit:
    """The fit of what the other kind of work leaves of both."""
    change, work = (x - (x @ other / (other @ other) if other.any() else 0.0) * other for x in (change, work))
    size = float(np.sqrt((change @ change) * (work @ work)))
    return Fit(float(change @ work / (work @ work)), float(change @ work) / size) if size else NO_FIT


def _order_of_shears(pairs: Sequence[Pair]) -> str:
    """The order of the shear components that explains the energies far better than the given one; else empty."""
    if len(pairs) < MIN_PAIRS:
        return ""
    shears = np.array([(pair.tension[SHEARS], pair.strain[SHEARS]) for pair in pairs])
    work = np.array([(pair.work, np.sum(pair.tension * pair.strain)) for pair in pairs]).sum(1)
    besides = np.array([pair.change for pair in pairs]) - work + 2.0 * np.sum(shears[:, 0] * shears[:, 1], axis=1)
    orders = [list(order) for order in permutations(range(3))]
    residual = [np.linalg.norm(besides - 2.0 * np.sum(shears[:, 0, order] * shears[:, 1], axis=1)) for order in orders]
    best = int(np.argmin(residual))
    if residual[best] > SHEAR_RESIDUAL_SHARE * residual[0]:
        return ""
    return ", ".join(("yz", "xz", "xy")[orders[best].index(k)] for k in range(3))


def _atoms_of_crystal(frame: LabelledFrame) -> tuple[bytes, bool] | None:
    """Equal for periodic frames of the same atoms, with and without stresses apart."""
    atoms = frame.atoms
    return (atoms.numbers.tobytes(), frame.stress is None) if atoms.pbc.any() and atoms.cell.rank == 3 else None


def _nearest_pairs(group: Sequence[LabelledFrame]) -> Iterator[Pair]:
    """Each frame with the nearest after it."""
    cells = np.array([frame.atoms.cell.array for frame in group])
    fractional = np.array([frame.atoms.get_scaled_positions(wrap=False) for frame in group])
    for k, frame in enumerate(group[:-1]):
        ahead = ahead_of(k, len(frame.atoms))
        strain = np.linalg.solve(cells[k], cells[ahead]) - np.eye(3)
        shift = fractional[ahead] - fractional[k]
        shift -= shift.round()
        moved = (shift - shift.mean(1, keepdims=True)) @ (0.5 * (cells[k] + cells[ahead]))
        distance = np.sqrt(np.square(moved).sum(-1).mean(-1))
        largest = np.abs(strain).max((1, 2))
        allowed = (largest > STRAIN_RANGE[0]) & (largest < STRAIN_RANGE[1]) & (distance < MAX_DISPLACEMENT)
        if not allowed.any():
            continue
        nearest = int(np.where(allowed, largest + distance, np.inf).argmin())
        other = group[k + 1 + nearest]
        yield Pair(
            other.energy - frame.energy,
            work_of_forces(frame.forces, other.forces, moved[nearest]),
            0.5 * (_tension(frame) + _tension(other)),
            strain[nearest],
        )


def _tension(frame: LabelledFrame) -> Floats:
    """`V σ`, eV; zero where it is not known."""
    return np.zeros((3, 3)) if frame.stress is None else frame.atoms.cell.volume * frame.stress
