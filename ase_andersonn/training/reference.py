"""Reference energy and force scale of each element, from the training frames."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from .data.labels import LabelKeys, labels_of

RIDGE = 1e-6
SMALLEST_SCALE = 0.02
"""Of the mean scale: an element without forces in all frames does not make its errors infinitely dear."""


def elements_of(frames: Sequence[Atoms]) -> tuple[int, ...]:
    """Atomic numbers in the frames, ascending."""
    return tuple(int(z) for z in np.unique(np.concatenate([atoms.numbers for atoms in frames])))


def sample_with_energies(frames: Sequence[Atoms], n: int, keys: LabelKeys | None = None) -> list[Atoms]:
    """Frames with energies, of each element `n` at least or all that there are; drawn once and for all.

    Args:
        frames: to draw from.
        n: frames of each element.
        keys: names of the labels.
    """
    seen: dict[int, int] = {}
    chosen = []
    for i in np.random.default_rng(0).permutation(len(frames)):
        kinds = np.unique(frames[i].numbers).tolist()
        if all(seen.get(z, 0) >= n for z in kinds) or labels_of(frames[i], keys).energy is None:
            continue
        chosen.append(frames[i])
        for z in kinds:
            seen[z] = seen.get(z, 0) + 1
    return chosen


def reference_energies(
    frames: Sequence[Atoms], given: Mapping[str, float] | None = None, keys: LabelKeys | None = None
) -> dict[int, float]:
    """`min Σ_frames (E/n − Σ_Z x_Z e_Z)² + ridge N Σ_Z (e_Z − ē)²`, over the N frames with energies.

    `x_Z` is the share of element Z, `ē` the mean of `E/n`; where energies are given, the last sum is over the other
    elements, and `ē = Σ_frames (E/n − Σ_given x_Z e_Z) / Σ_frames Σ_others x_Z`. The ridge of 10⁻⁶ decides only what
    the energies leave open, such as what belongs to which element where all frames have one composition.

    Args:
        frames: training frames; those without energy do not count.
        given: eV by element symbol, kept as they are; also of elements that no frame holds.
        keys: names of the labels.

    Returns:
        eV by atomic number.
    """
    fixed = {_number(symbol): energy for symbol, energy in (given or {}).items()}
    elements = sorted({*elements_of(frames), *fixed})
    labelled = [(atoms, energy) for atoms in frames if (energy := labels_of(atoms, keys).energy) is not None]
    if not labelled:
        return {z: fixed.get(z, 0.0) for z in elements}
    numbers, energies = zip(*((atoms.numbers, energy) for atoms, energy in labelled), strict=True)
    return energies_by_element(elements, numbers, energies, fixed)


def energies_by_element(
    elements: Sequence[int],
    numbers: Sequence[np.ndarray],
    energies: Sequence[float],
    fixed: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """The fit of `reference_energies`.

    Args:
        elements: atomic numbers.
        numbers: atomic numbers of each structure's atoms.
        energies: of each structure, eV.
        fixed: eV by atomic number, not fitted.

    Returns:
        eV by atomic number.
    """
    fixed = fixed or {}
    share = np.array([[np.mean(of_one == z) for z in elements] for of_one in numbers])
    per_atom = np.array([energy / len(of_one) for of_one, energy in zip(numbers, energies, strict=True)])
    known = np.array([z in fixed for z in elements])
    found = np.array([fixed.get(z, 0.0) for z in elements])
    rest = per_atom - share @ found
    x = share[:, ~known]
    mean = rest.sum() / max(x.sum(), 1e-12)
    normal = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
    found[~known] = mean + np.linalg.solve(normal, x.T @ (rest - mean * x.sum(1)))
    return {z: float(energy) for z, energy in zip(elements, found, strict=True)}


def force_scales(frames: Sequence[Atoms], keys: LabelKeys | None = None, pooled_atoms: float = 0.0) -> dict[int, float]:
    """`s_Z^w s^(1−w)`, `s_Z = √⟨F_x²⟩` over the force components of an element's atoms, `s` over those of all, eV/Å.

    An element without forces takes the scale of all others; where all forces are zero or none is given, 1 eV/Å.

    Args:
        frames: training frames.
        keys: names of the labels.
        pooled_atoms: atoms of an element at which its own scale counts as much as that of all,
            `w = n_Z / (n_Z + pooled_atoms)`.
    """
    elements = elements_of(frames)
    labelled = [(atoms, forces) for atoms in frames if (forces := labels_of(atoms, keys).forces) is not None]
    if not labelled:
        return dict.fromkeys(elements, 1.0)
    numbers = np.concatenate([atoms.numbers for atoms, _ in labelled])
    square = np.concatenate([forces for _, forces in labelled]) ** 2
    overall = float(np.sqrt(square.mean()))
    if overall == 0.0:
        return dict.fromkeys(elements, 1.0)
    scales = {}
    for z in elements:
        own = square[numbers == z]
        scale = max(float(np.sqrt(own.mean())), SMALLEST_SCALE * overall) if len(own) else overall
        share = len(own) / (len(own) + pooled_atoms) if len(own) else 0.0
        scales[z] = scale**share * overall ** (1.0 - share)
    return scales


def _number(symbol: str) -> int:
    if symbol not in atomic_numbers or symbol == chemical_symbols[0]:
        raise ValueError(f"reference_energies names {symbol!r}, which is no element symbol.")
    return int(atomic_numbers[symbol])
