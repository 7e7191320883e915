"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` at the end; an interruption leaves `path` as it was."""
    umask = os.umask(0)
    os.umask(umask)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask)  # as any other new file; mkstemp's are the owner's alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file by `data`, or leave it as it is."""
    with atomic_file(path) as file:
        file.write(data)


def check_folder(path: Path | None) -> None:
    """Raise FileNotFoundError where a file could not be written since its folder is not there."""
    if path is not None and not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.resolve().parent} to write {path.name} into.")


def why_unwritable(path: Path) -> str:
    """Why a file cannot be written, as "Read-only file system"; empty where it can.

    A file is written beside it, as `atomic_file` does, and removed.
    """
    if path.is_dir():
        return "it is a folder"
    if path.exists() and not path.is_file():  # a device as /dev/null would be replaced
        return "it is no regular file"
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        return error.strerror or str(error)
    try:
        os.write(handle, bytes(4096))  # a full disk often has room for a name still
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(handle)
        Path(temporary).unlink(missing_ok=True)
    return ""


def check_new_folder(folder: Path) -> None:
    """Raise OSError where a folder and files in it could not be made."""
    parent = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"{folder} cannot be made a folder: {parent} is a file.")
    if why := why_unwritable(parent / "file"):
        raise OSError(f"nothing can be written into {folder}: {why}.")
