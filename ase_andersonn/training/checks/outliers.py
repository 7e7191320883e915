"""Outliers among labels, and overlapping atoms: signs of calculations that went wrong."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ase_andersonn.structures.convert import TOO_CLOSE
from ase_andersonn.training.data.dataset import FrameDataset, shortest_share
from ase_andersonn.training.data.labels import LabelKeys, labels_of
from ase_andersonn.training.reference import reference_energies

OUTLIER_FACTOR = 30.0
"""Times the value that nine frames in ten stay below."""
MIN_OUTLIER_FORCE = 10.0
"""eV/Å; smaller forces are no outliers, as where most frames are relaxed."""
MIN_OUTLIER_ENERGY, MIN_OUTLIER_ENERGY_DIMER = 1.0, 20.0
"""eV/atom; the second of one or two atoms, which lie above the others by their cohesive energy."""
MAX_NAMED = 5
"""Frames that a warning names."""


def check_outliers(frames: Sequence[Atoms], keys: LabelKeys, kind: str = "") -> list[str]:
    """Warnings of outliers among energies and forces.

    - root mean square forces above `MIN_OUTLIER_FORCE` and `OUTLIER_FACTOR` times those of nine frames in ten;
    - energies, besides the elements' references, more than `MIN_OUTLIER_ENERGY` and `OUTLIER_FACTOR` times as far from
      the median as those of nine in ten.

    Args:
        frames: of one set.
        keys: names of the labels.
        kind: of the set, such as "validation ".
    """
    given = [labels_of(atoms, keys).forces for atoms in frames]
    forces = np.array([np.nan if f is None else np.sqrt(np.square(f).mean()) for f in given])
    large = f"{kind}frames have forces more than {OUTLIER_FACTOR:g} times as large as"
    far = f"{kind}frames have energies, besides the elements' own, more than {OUTLIER_FACTOR:g} times as far from the "
    least = np.array([MIN_OUTLIER_ENERGY_DIMER if len(atoms) <= 2 else MIN_OUTLIER_ENERGY for atoms in frames])
    return [
        *_outliers(large, "eV/Å", frames, forces, MIN_OUTLIER_FORCE),
        *_outliers(f"{far}median as", "eV/atom", frames, _from_the_median(frames, keys), least),
    ]


def _outliers(text: str, unit: str, frames: Sequence[Atoms], size: np.ndarray, least: np.ndarray | float) -> list[str]:
    """A warning of frames whose `size`, nan without a label, exceeds `least` and the factor times nine in ten."""
    known = np.flatnonzero(~np.isnan(size))
    if not len(known):
        return []
    usual = float(np.quantile(size[known], 0.9, method="lower"))
    outlying = size > np.maximum(OUTLIER_FACTOR * usual, least)
    order = [k for k in known[np.argsort(-size[known])] if outlying[k]]
    if not order:
        return []
    named = ", ".join(f"{k}, {frames[k].get_chemical_formula()} ({size[k]:.3g} {unit})" for k in order[:MAX_NAMED])
    more = ", …" if len(order) > MAX_NAMED else ""
    return [
        f"{len(order)} of {len(known)} {text} those of nine in ten ({usual:.3g} {unit}), counted from 0: {named}{more}."
        " Did these calculations converge, and are the labels in eV and Å?"
    ]


def _from_the_median(frames: Sequence[Atoms], keys: LabelKeys) -> np.ndarray:
    """Distance of the energies, less the references of the elements, from their median [n_frames], eV/atom."""
    references = reference_energies(frames, keys=keys)
    besides = np.array(
        [
            np.nan if energy is None else energy / len(atoms) - np.mean([references[z] for z in atoms.numbers])
            for atoms in frames
            for energy in (labels_of(atoms, keys).energy,)
        ]
    )
    return np.abs(besides - (np.nanmedian(besides) if not np.isnan(besides).all() else 0.0))


def check_overlaps(data: FrameDataset) -> list[str]:
    """A warning of training frames with overlapping atoms, which would lower the distance of the repulsion."""
    shares = np.array([shortest_share(frame) for frame in data.data])
    overlapping = np.flatnonzero(shares < TOO_CLOSE)
    if not len(overlapping):
        return []
    worst = overlapping[shares[overlapping].argsort()][:MAX_NAMED]
    named = ", ".join(f"frame {k}, {shares[k]:.2g}" for k in worst)
    return [
        f"{len(overlapping)} of {len(shares)} training frames hold atoms nearer than {TOO_CLOSE:g} times the sum of "
        f"their covalent radii: {named} times, counted from 0 among the training frames. Leave them out unless they "
        "are collisions."
    ]
