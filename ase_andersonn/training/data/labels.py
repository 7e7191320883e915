"""Labelled structures from files: extxyz, ASE databases, anything `structures.files` reads."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_andersonn.structures.convert import check_atoms
from ase_andersonn.structures.files import read_file
from ase_andersonn.structures.paths import expand
from ase_andersonn.training.config import LabelKeys as LabelKeys

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FrameLabels:
    """Labels of one structure; None where it has none.

    Attributes:
        energy: eV.
        forces: [n_atoms, 3], eV/Å.
        stress: (1/V) dE/dε [3, 3], eV/Å³; only of structures periodic in three directions.
    """

    energy: float | None
    forces: Array | None
    stress: Array | None


def read_frames(patterns: Iterable[str], keys: LabelKeys | None = None) -> list[Atoms]:
    """All structures of the files, each with at least one label.

    Raises:
        FileNotFoundError: for a pattern that stands for no file.
        ValueError: for a file that cannot be read, a frame that has no energy (see `check_atoms`), and one without
            labels or with bad ones.
    """
    frames: list[Atoms] = []
    for path in expand(patterns):
        for index, atoms in enumerate(read_file(path)):
            try:
                check_atoms(atoms)
                labels = labels_of(atoms, keys)
            except ValueError as error:
                raise ValueError(f"{path}, frame {index}: {error}") from error
            if labels.energy is None and labels.forces is None and labels.stress is None:
                raise ValueError(f"{path}, frame {index}: {_no_labels(atoms, keys or LabelKeys())}")
            frames.append(atoms)
    return frames


def check_names(frames: Sequence[Atoms], keys: LabelKeys) -> None:
    """Refuse a name given in `keys` that no frame has: it is misspelt.

    Raises:
        ValueError: for such a name.
    """
    for label, name in _given_and_absent(frames, keys):
        raise ValueError(f"no frame has {label} under the name {name!r}; the first has {_names(frames[0])}.")


def missing_names(validation: Sequence[Atoms], keys: LabelKeys) -> list[str]:
    """Warnings of names given in `keys` that no validation frame has."""
    return [
        f"no validation frame has {label} under the name {name!r}; the first has {_names(validation[0])}."
        for label, name in _given_and_absent(validation, keys)
    ]


def _given_and_absent(frames: Sequence[Atoms], keys: LabelKeys) -> Iterator[tuple[str, str]]:
    for label in fields(keys):
        name = getattr(keys, label.name)
        if name != label.default and all(_find(atoms, name) is None for atoms in frames):
            yield label.name, name


def labels_of(atoms: Atoms, keys: LabelKeys | None = None) -> FrameLabels:
    """The labels a structure carries.

    Raises:
        ValueError: for a label of the wrong shape or one that is not finite.
    """
    keys = keys or LabelKeys()
    energy = _label(atoms, keys.energy, [(), (1,)])
    forces = _label(atoms, keys.forces, [(len(atoms), 3)])
    stress = _label(atoms, keys.stress, [(6,), (3, 3), (9,)]) if atoms.pbc.all() else None
    if stress is not None:
        stress = voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress.reshape(3, 3)
    return FrameLabels(None if energy is None else float(energy.reshape(())), forces, stress)


def _label(atoms: Atoms, key: str, shapes: Sequence[tuple[int, ...]]) -> Array | None:
    value = _find(atoms, key)
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in shapes:
        raise ValueError(f"{key!r} has shape {array.shape}; expected {' or '.join(map(str, shapes))}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{key!r} is not finite; leave the label out, or the frame.")
    return array


def _find(atoms: Atoms, key: str) -> Any:
    # `calc.results` and not `get_potential_energy()`: a label is read, never computed.
    results = getattr(atoms.calc, "results", {})
    for place in (results, atoms.arrays, atoms.info):
        if place.get(key) is not None:
            return place[key]
    return None


def _no_labels(atoms: Atoms, keys: LabelKeys) -> str:
    return (
        f"no label {keys.energy!r}, {keys.forces!r} or {keys.stress!r}; it has {_names(atoms)}. "
        "Name the right ones: under `labels` of a config, or as --energy-key, --forces-key and --stress-key."
    )


def _names(atoms: Atoms) -> str:
    """What a frame holds, for the text of an error."""
    present = {*getattr(atoms.calc, "results", {}), *atoms.info, *atoms.arrays} - {"numbers", "positions"}
    return ", ".join(sorted(present)) or "none at all"
