"""Checksums within files: every change is reported."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from damage import accidents

from ase_andersonn.checksum import MARK, read_arrays, write_arrays

ARRAYS = {"a": np.arange(5000.0).reshape(-1, 2), "b": np.array("text"), "c/d": np.zeros((0, 3), np.int8)}


def test_arrays_come_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS)
    for _ in range(2):
        found, has_checksum = read_arrays(tmp_path / "a.npz")
        assert has_checksum
        assert found.keys() == ARRAYS.keys()
        for name, values in ARRAYS.items():
            assert np.array_equal(found[name], values)
            assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
    with np.load(tmp_path / "a.npz") as file:  # it is an npz file for others, too
        assert np.array_equal(file["a"], ARRAYS["a"])


def test_what_was_changed_is_never_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, ARRAYS)
    for damage in accidents(path, flips=300):
        with suppress(ValueError):
            assert not read_arrays(path)[1], damage
    assert read_arrays(path)[1]


def test_a_checksum_is_of_the_whole_file(tmp_path: Path) -> None:
    """Not of a part that ends with another checksum."""
    write_arrays(tmp_path / "a.npz", {"a": np.frombuffer(MARK + b"0" * 64, np.uint8)})
    assert read_arrays(tmp_path / "a.npz")[1]
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    write_arrays(second, ARRAYS)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(ValueError, match="does not match its checksum"):
        read_arrays(first)
