"""Data files that are written frame by frame: interrupted, damaged, or used by two processes."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read
from damage import accidents
from data_scripts import DATA, load

from ase_andersonn.lock import InUseError


@pytest.fixture(scope="module")
def resumable() -> ModuleType:
    return load(DATA / "resumable.py")


def numbered(number: int) -> Atoms:
    """Stands for an engine that cannot do every structure."""
    if number == 2:
        raise RuntimeError("charges do not converge")
    atoms = molecule("CH3OH")
    atoms.positions += 0.1 * number
    return atoms


@pytest.mark.parametrize("lost", [1, 60, 200, 250])
def test_an_interrupted_file_is_completed(
    resumable: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: int
) -> None:
    collect: Callable[..., None] = resumable.collect
    collect(tmp_path / "whole.extxyz", range(4), "number", numbered)
    assert "0 were there, 3 added, 1 left out" in capsys.readouterr().out
    whole = (tmp_path / "whole.extxyz").read_bytes()
    (tmp_path / "cut.extxyz").write_bytes(whole[:-lost])
    collect(tmp_path / "cut.extxyz", range(4), "number", numbered)
    assert "2 were there, 1 added, 1 left out" in capsys.readouterr().out
    assert (tmp_path / "cut.extxyz").read_bytes() == whole
    assert [atoms.info["number"] for atoms in read(tmp_path / "cut.extxyz", ":")] == [0, 1, 3]


def test_a_file_cut_in_its_first_frame(resumable: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "cut.extxyz"
    path.write_text("12\nProperties=spe")
    assert resumable.whole_frames(path) == []
    assert path.read_text() == ""
    assert resumable.whole_frames(tmp_path / "nothing.extxyz") == []


def test_a_file_that_was_changed_is_reported(resumable: ModuleType, tmp_path: Path) -> None:
    path, beside = tmp_path / "whole.extxyz", tmp_path / "whole.extxyz.sha256"
    resumable.collect(path, range(4), "number", numbered)
    assert beside.read_text().split()[1] == str(path.stat().st_size)
    for file in (path, beside):
        for damage in accidents(file):
            if damage in ("twice", "longer", "a folder") and file == path:
                continue  # what follows the whole frames is dropped
            if damage == f"cut to {beside.stat().st_size} bytes" and file == beside:
                continue  # the end of its line
            with pytest.raises(ValueError, match=r"whole\.extxyz"):
                resumable.collect(path, range(5), "number", numbered)
    resumable.collect(path, range(5), "number", numbered)
    assert [atoms.info["number"] for atoms in read(path, ":")] == [0, 1, 3, 4]
    beside.unlink()
    assert len(resumable.whole_frames(path)) == 4


def test_frames_after_the_checksum_are_made_again(
    resumable: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process is killed while it writes one, or between a frame and its checksum."""
    path = tmp_path / "whole.extxyz"
    resumable.collect(path, range(2), "number", numbered)
    whole = path.read_bytes()
    for rest in (b"12\nProp", whole, whole[:100]):
        path.write_bytes(whole + rest)
        assert [atoms.info["number"] for atoms in resumable.whole_frames(path)] == [0, 1]
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\nmore\n", "line 1 is not the number of a frame's atoms"),
        (b"1\nProperties=species:S:1:pos:R:3\nH 0 0 0\nx\n", "line 4 is not"),
        (b"1\nProperties=species:S:1:pos:R:3\nH 0 0\n", "is damaged, or no extended XYZ file"),
        (b"1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", "holds a frame, H, without a number under 'number'"),
    ],
)
def test_a_file_of_another_kind(resumable: ModuleType, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.extxyz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"other\.extxyz.*{message}"):
        resumable.collect(path, range(2), "number", numbered)
    assert path.read_bytes() == content


def test_two_that_append_to_one_file(resumable: ModuleType, tmp_path: Path) -> None:
    path, errors = tmp_path / "whole.extxyz", []

    def make(number: int) -> Atoms:
        uses = (lambda: resumable.collect(path, range(2), "number", numbered), lambda: resumable.whole_frames(path))
        for use in uses if number else ():
            with pytest.raises(InUseError, match=f"in use by process {os.getpid()} on .* name another output") as error:
                use()
            errors.append(error)
        return numbered(number)

    resumable.collect(path, [0, 1], "number", make)
    assert len(errors) == 2
    assert len(read(path, ":")) == 2
