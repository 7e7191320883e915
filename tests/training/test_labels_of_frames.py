"""Reading labelled frames."""

import bz2
import gzip
import io
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from ase_andersonn.structures import files
from ase_andersonn.structures.files import read_file
from ase_andersonn.structures.paths import expand
from ase_andersonn.training import TrainConfig
from ase_andersonn.training.config import LabelKeys
from ase_andersonn.training.data.labels import labels_of, read_frames
from ase_andersonn.training.setup import TrainingSetup


def assert_same(found: list[Atoms], expected: list[Atoms]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-7)
        left, right = labels_of(a), labels_of(b)
        assert left.energy == pytest.approx(right.energy, abs=1e-7)
        np.testing.assert_allclose(left.forces, right.forces, atol=1e-7)
        assert (left.stress is None) == (right.stress is None)
        if right.stress is not None:
            np.testing.assert_allclose(left.stress, right.stress, atol=1e-7)


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.traj", "a.db", "a.json"])
def test_formats_of_ase(tmp_path: Path, frames: list[Atoms], name: str) -> None:
    if name.endswith("db"):
        with connect(tmp_path / name) as database:
            for atoms in frames:
                database.write(atoms)
    else:
        write(tmp_path / name, frames, format="extxyz" if name.endswith("xyz") else None)
    assert_same(read_frames([str(tmp_path / name)]), frames)


@pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.open), (".bz2", bz2.open), (".gz", gzip.open)])
def test_compressed(tmp_path: Path, frames: list[Atoms], suffix: str, pack: object) -> None:
    write(tmp_path / "plain.extxyz", frames)
    with pack(tmp_path / f"a.extxyz{suffix}", "wt") as file:  # type: ignore[operator]
        file.write((tmp_path / "plain.extxyz").read_text())
    assert_same(read_frames([str(tmp_path / f"a.extxyz{suffix}")]), frames)


def test_compressed_text_is_unpacked_before_ase_sees_it(
    tmp_path: Path, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.extxyz", frames)
    (tmp_path / "a.extxyz.xz").write_bytes(lzma.compress((tmp_path / "a.extxyz").read_bytes()))

    def read_nothing_but_plain_files(stream: io.TextIOWrapper) -> list[Atoms]:
        assert isinstance(stream.buffer.raw, io.FileIO)  # type: ignore[attr-defined]
        assert not stream.name.endswith(".xz")
        return frames

    monkeypatch.setitem(files.BLOCKS, "extxyz", read_nothing_but_plain_files)
    assert len(read_file(tmp_path / "a.extxyz.xz")) == len(frames)


def test_patterns(tmp_path: Path) -> None:
    for name in ("b.xyz", "a.xyz", "c.txt"):
        (tmp_path / name).touch()
    names = [path.name for path in expand([str(tmp_path / "*.xyz"), str(tmp_path / "a.xyz"), str(tmp_path / "c.txt")])]
    assert names == ["a.xyz", "b.xyz", "c.txt"]
    with pytest.raises(FileNotFoundError, match=r"no file matches .*\.cif"):
        expand([str(tmp_path / "*.cif")])


def test_labels_under_other_names(tmp_path: Path) -> None:
    atoms = bulk("Cu")
    atoms.info["dft_energy"] = -3.0
    atoms.arrays["dft_forces"] = np.ones((1, 3))
    atoms.info["dft_stress"] = np.arange(9.0)
    write(tmp_path / "a.extxyz", atoms)
    keys = LabelKeys("dft_energy", "dft_forces", "dft_stress")
    (found,) = read_frames([str(tmp_path / "a.extxyz")], keys)
    labels = labels_of(found, keys)
    assert labels.energy == -3.0
    np.testing.assert_array_equal(labels.forces, [[1, 1, 1]])
    np.testing.assert_array_equal(labels.stress, np.arange(9.0).reshape(3, 3))
    with pytest.raises(ValueError, match=r"frame 0: no label 'energy'.* it has .*dft_energy"):
        read_frames([str(tmp_path / "a.extxyz")])


def test_voigt_order() -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, stress=np.array([1.0, 2, 3, 4, 5, 6]))
    np.testing.assert_array_equal(labels_of(atoms).stress, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


def test_a_chosen_name_that_no_frame_has_is_refused(config: TrainConfig) -> None:
    for label in ("energy", "forces", "stress"):
        with pytest.raises(
            ValueError, match=rf"no frame has {label} under the name 'dft'; the first has energy, forces"
        ):
            TrainingSetup.from_config(replace(config, labels=LabelKeys(**{label: "dft"})))


def test_the_stress_of_a_slab_is_no_label() -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, stress=np.ones(6))
    atoms.pbc = (True, True, False)
    assert labels_of(atoms).stress is None


def test_labels_are_never_computed() -> None:
    from ase.calculators.emt import EMT

    atoms = bulk("Cu")
    atoms.calc = EMT()
    assert labels_of(atoms).energy is None


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"energy": np.nan}, "'energy' is not finite"),
        ({"forces": np.full((1, 3), np.inf)}, "'forces' is not finite"),
        ({"forces": np.zeros((2, 3))}, r"'forces' has shape \(2, 3\); expected \(1, 3\)"),
        ({"stress": np.zeros(5)}, r"'stress' has shape \(5,\); expected \(6,\) or \(3, 3\)"),
    ],
)
def test_bad_labels(label: dict[str, object], message: str) -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.results = label
    with pytest.raises(ValueError, match=message):
        labels_of(atoms)


def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_text("this is\nno structure\n")
    with pytest.raises(ValueError, match=r"a\.extxyz cannot be read"):
        read_frames([str(tmp_path / "a.extxyz")])


def test_a_file_that_breaks_off(tmp_path: Path, frames: list[Atoms]) -> None:
    path = tmp_path / "a.extxyz"
    write(path, frames)
    lines = path.read_text().splitlines()
    for left_out, why in (
        (len(frames[-1]), "Frame has 0 atoms, expected"),
        (len(frames[-1]) + 1, "it ends within a frame"),
    ):
        path.write_text("\n".join(lines[:-left_out]) + "\n")
        with pytest.raises(ValueError, match=rf"a\.extxyz cannot be read: .*{why}"):
            read_frames([str(path)])


def test_a_file_without_structures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.extxyz"
    path.write_text("")
    with pytest.raises(ValueError, match=r"empty\.extxyz has no structure"):
        read_frames([str(path)])
