"""SHA-256 checksums within restart files, so that any flipped bit is detected on reading.

The checksum covers all bytes of the file, with its own 64 digits replaced by zeros.
"""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .atomic_write import atomic_file

BLANK = "0" * 64
"""Placeholder of the checksum until the rest is written."""
MARK = b"ase-andersonn-sha256:"
"""Start of the comment of an npz file, which ends with the checksum."""
COMMENT = len(MARK) + len(BLANK)
BLOCK = 1 << 20


def fill_in(file: IO[bytes], place: int) -> None:
    """Write the checksum over the placeholder at `place` (bytes) of a file open for reading and writing."""
    found = _checksum(file, place)
    file.seek(place)
    file.write(found)


def verify(file: IO[bytes], place: int) -> None:
    """Raise ValueError if the checksum at `place` (bytes) is not that of the file."""
    found = _checksum(file, place)
    file.seek(place)
    if file.read(len(BLANK)) != found:
        raise ValueError("it is damaged: its content does not match its checksum")


def check_is_file(path: Path) -> None:
    """Raise ValueError for a folder, a device, and an empty file."""
    if path.exists() and not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "it is no regular file")
    if path.stat().st_size == 0:
        raise ValueError("it is empty")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an npz file with a checksum atomically."""
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the last for allow_pickle
        file.seek(-2, 2)  # an archive ends with the length of its comment, and the comment
        file.write(struct.pack("<H", COMMENT) + MARK + BLANK.encode())
        fill_in(file, file.tell() - len(BLANK))


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], bool]:
    """Read the arrays of an npz file, and whether it has a checksum; nothing is unpickled.

    Raises:
        ValueError: for other files, and for a damaged file.
    """
    try:
        check_is_file(path)
        with open(path, "rb") as file:
            place = max(path.stat().st_size - COMMENT, 0)
            file.seek(place)
            has_checksum = file.read(len(MARK)) == MARK
            if has_checksum:
                verify(file, place + len(MARK))
            file.seek(0)
            if file.read(2) != b"PK":
                raise ValueError("it is no npz file")
            file.seek(0)
            return dict(np.load(file, allow_pickle=False)), has_checksum
    except Exception as error:  # zipfile, zlib and NumPy raise many types of exceptions for damaged files
        raise ValueError(_text(error)) from error


def _text(error: Exception) -> str:
    """Message of an exception without final punctuation; of an OSError without number and file."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.rstrip(".") or type(error).__name__


def _checksum(file: IO[bytes], place: int) -> bytes:
    digest, left = hashlib.sha256(), place
    file.seek(0)
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            raise ValueError("it is cut short")
        digest.update(block)
        left -= len(block)
    digest.update(BLANK.encode())
    file.seek(len(BLANK), 1)
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest().encode()
