"""Atomic writing of files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Context with a temporary file that replaces `path` at the end; an interruption leaves `path` unchanged."""
    umask = os.umask(0)
    os.umask(umask)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask)  # permissions of a new file; those of mkstemp are for the owner only
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to a file atomically."""
    with atomic_file(path) as file:
        file.write(data)


def check_folder(path: Path | None) -> None:
    """Raise FileNotFoundError if the folder of a file does not exist."""
    if path is not None and not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.resolve().parent} to write {path.name} into.")


def why_unwritable(path: Path) -> str:
    """Reason why a file cannot be written, such as "Read-only file system"; empty if it can.

    A temporary file in its folder is written, as by `atomic_file`, and removed.
    """
    if path.is_dir():
        return "it is a folder"
    if path.exists() and not path.is_file():  # a device such as /dev/null would be replaced
        return "it is no regular file"
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        return error.strerror or str(error)
    try:
        os.write(handle, bytes(4096))  # a full disk often still has room for an empty file
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(handle)
        Path(temporary).unlink(missing_ok=True)
    return ""


def check_new_folder(folder: Path) -> None:
    """Raise OSError if a folder and files in it could not be created."""
    parent = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"{folder} cannot be created: {parent} is a file.")
    if why := why_unwritable(parent / "file"):
        raise OSError(f"{folder} is not writable: {why}.")
