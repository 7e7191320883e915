"""Files are written whole or not at all."""

import os
from pathlib import Path

import pytest

from ase_andersonn.atomic_write import atomic_file, atomic_write, why_unwritable


def test_a_file_is_replaced_by_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"one")
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interruption_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"one")

    def interrupted() -> None:
        with atomic_file(path) as file:
            file.write(b"half of t")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_may_be_read_by_whom_any_new_file_may_be(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert why_unwritable(tmp_path / "pipe") == "it is no regular file"
    assert why_unwritable(Path(os.devnull)) == "it is no regular file"
