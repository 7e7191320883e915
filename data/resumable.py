"""Labelled structures, one after another into an extended XYZ file; a run that was interrupted goes on.

Beside the file, `….sha256` holds the SHA-256 of its first bytes and how many these are.
"""

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ase import Atoms
from ase.io import read, write
from tqdm import tqdm

from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.lock import Lock

SECONDS = 1.0
"""Between two writings of the checksum; what was made since the last one is made again after an interruption."""


def collect(output: Path, numbers: Iterable[int], key: str, make: Callable[[int], Atoms]) -> None:
    """Append `make(number)` for every number that the file does not hold yet; where that fails, say so and go on.

    Args:
        output: the file; a frame that was being written when a run was interrupted is dropped and made again.
        numbers: of the structures.
        key: under which a frame's number stands in its comment line.
        make: the labelled structure of a number, whatever else the file holds.

    Raises:
        InUseError: if another process writes the file.
        ValueError: for a file that is damaged, or holds frames without number.
    """
    with lock(output):
        done = {_number(output, key, frame) for frame in _whole_frames(output)}
        frames = Frames(output)
        written = left_out = 0
        try:
            for number in tqdm(numbers, key):
                if number in done:
                    continue
                try:
                    atoms = make(number)
                except Exception as error:  # the engines raise plain exceptions
                    tqdm.write(f"{key} {number} left out: {error}")
                    left_out += 1
                    continue
                atoms.info[key] = number
                frames.append(atoms)
                written += 1
        finally:
            frames.write_checksum()
    print(f"{output}: {len(done)} were there, {written} added, {left_out} left out")


def whole_frames(path: Path) -> list[Atoms]:
    """The complete frames of the file; a last one cut short by an interruption is removed from it.

    Raises:
        InUseError: if another process writes the file.
        ValueError: for a file that is damaged.
    """
    with lock(path):
        return _whole_frames(path)


def lock(path: Path) -> Lock:
    """One process at a time appends to the file."""
    remedy = "Wait until that has ended, stop it, or name another output."
    return Lock(path.with_name(f".{path.name}.lock"), str(path), remedy)


class Frames:
    """The file that frames are appended to, with its checksum.

    Args:
        path: the file, of whole frames.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        self._digest, self._size, self._written = hashlib.sha256(content), len(content), -SECONDS

    def append(self, atoms: Atoms) -> None:
        """One more frame, in one piece; a third smaller without the blanks that align its columns."""
        text = io.StringIO()
        write(text, atoms, format="extxyz")
        count, comment, *rows = text.getvalue().splitlines()
        data = ("\n".join([count, comment, *(" ".join(row.split()) for row in rows)]) + "\n").encode()
        with self.path.open("ab") as stream:
            stream.write(data)
        self._digest.update(data)
        self._size += len(data)
        if time.monotonic() - self._written > SECONDS:
            self.write_checksum()

    def write_checksum(self) -> None:
        """Of all frames so far."""
        if self._size:
            with self.path.open("ab") as stream:
                os.fsync(stream.fileno())  # before the checksum: never is it of what is not there yet
            atomic_write(_checksum_file(self.path), f"{self._digest.hexdigest()} {self._size}\n".encode())
        self._written = time.monotonic()


def _whole_frames(path: Path) -> list[Atoms]:
    if not path.exists():
        return []
    for file in (path, _checksum_file(path)):
        if file.is_dir():
            raise ValueError(f"{file} is a folder, and has to be a file. Move it away, or name another output.")
    data = path.read_bytes()
    size = _size_with_checksum(path, data) if _checksum_file(path).exists() else _size_of_whole_frames(path, data)
    if size < len(data):
        atomic_write(path, data[:size])
    try:
        return read(path, ":", format="extxyz") if size else []
    except Exception as error:  # ASE raises what it comes upon
        raise ValueError(f"{path} is damaged, or no extended XYZ file ({error}). Put a copy in its place.") from error


def _size_with_checksum(path: Path, data: bytes) -> int:
    beside = _checksum_file(path)
    digest, _, size = beside.read_text(encoding="utf-8", errors="replace").partition(" ")
    n = int(size) if size.strip().isdecimal() else -1
    if not 0 <= n <= len(data) or hashlib.sha256(data[:n]).hexdigest() != digest:
        raise ValueError(
            f"{path} or {beside.name} is damaged: they do not fit together. Put copies in their place, or remove "
            f"{beside.name} if the frames are known to be right."
        )
    return n


def _size_of_whole_frames(path: Path, data: bytes) -> int:
    """Of a file without a checksum."""
    lines = data.splitlines(keepends=True)
    start = 0
    while start < len(lines):
        if not lines[start].strip().isdigit():
            raise ValueError(
                f"{path} is damaged, or no extended XYZ file: line {start + 1} is not the number of a frame's atoms. "
                "Put a copy in its place, or name another output."
            )
        end = start + int(lines[start]) + 2
        if end > len(lines) or not lines[end - 1].endswith(b"\n"):
            break
        start = end
    return len(b"".join(lines[:start]))


def _number(path: Path, key: str, frame: Atoms) -> int:
    try:
        return int(frame.info[key])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds a frame, {frame.get_chemical_formula()}, without a number under {key!r}: it is a file of "
            "another kind. Name another output."
        ) from error


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
