"""Reader of structure files: all structures of a file of any format, encoding or compression.

A structure that cannot be read is replaced by an error, so that one bad file or block does not stop the rest.
"""

import bz2
import codecs
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from .blocks import BLOCKS
from .paths import is_structure_name, printable
from .unreadable import why_unreadable

Found = Atoms | Exception
UNPACK: dict[bytes, Callable[..., IO[bytes]]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # type: ignore[dict-item]
PACKED = (".gz", ".bz2", ".xz", ".lzma")
UNKNOWN_PACKING = {b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR", b"\x1f\x9d": "compress"}
BYTE_ORDER_MARKS = {  # the longer ones first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
HEAD_BYTES = 4096
"""Number of bytes from which compression, encoding and format are detected."""
ENDINGS = {
    ".xyz": "extxyz",
    ".extxyz": "extxyz",
    ".cif": "cif",
    ".mcif": "cif",
    ".json": "json",
    ".jsonl": "json",
    ".traj": "traj",
    ".db": "db",
    ".sdf": "sdf",
    ".mol": "sdf",
    ".vasp": "vasp",
    ".poscar": "vasp",
}
NAMES = {"XDATCAR": "vasp-xdatcar", "OUTCAR": "vasp-out", "POSCAR": "vasp", "CONTCAR": "vasp", "CENTCAR": "vasp"}


def structures_in(path: Path, name: str = "") -> Iterator[tuple[str, Found]]:
    """All structures of a file with their names: `file`, or `file#0`, `file#1`, … for several, and `archive/file`.

    - any format of `ase.io`, JSON of pymatgen's structures, molecules and entries;
    - compressed by gzip, bzip2 or xz, or in a zip or tar archive, independent of the file name;
    - text as UTF-8, or as UTF-16 or UTF-32 with a byte order mark.

    Args:
        path: the file.
        name: name for the results; its path by default.

    Yields:
        name, and structure or error; at least one pair per file.
    """
    name = name or printable(path)
    try:
        head = _head(path, name)
        if _is_archive(path, head):
            yield from _unpacked_archive(path, name)
            return
        found = _structures(path, head, name)
        first = list(islice(found, 2))
    except Exception as error:
        yield name, _unreadable(name, error)
        return
    if len(first) < 2:
        yield name, first[0] if first else ValueError(f"{name} has no structure.")
        return
    for index, structure in enumerate(chain(first, found)):
        yield f"{name}#{index}", structure


def read_file(path: str | Path) -> list[Atoms]:
    """All structures of one file.

    Raises:
        OSError: for a file that cannot be opened.
        ValueError: if any part of the file cannot be read.
    """
    structures = []
    for _, found in structures_in(Path(path)):
        if isinstance(found, Exception):
            raise found
        structures.append(found)
    return structures


def _head(path: Path, name: str) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {name} (working directory {Path.cwd()}).")
    if not path.is_file():
        raise ValueError(f"{name} is {'a folder' if path.is_dir() else 'no regular file'}; give a file of structures.")
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.strip():
        raise ValueError(f"{name} has no structure: it is empty.")
    for magic, kind in UNKNOWN_PACKING.items():
        if head.startswith(magic):
            raise ValueError(
                f"{name} is compressed by {kind}, which cannot be read; unpack it, or use .gz, .bz2, .xz, .zip or .tar."
            )
    return head


def _is_archive(path: Path, head: bytes) -> bool:
    packed = head.startswith(tuple(UNPACK)) or path.suffix.lower() == ".tar" or head[257:262] == b"ustar"
    return zipfile.is_zipfile(path) if head.startswith(b"PK") else packed and tarfile.is_tarfile(path)


def _unpacked_archive(path: Path, name: str) -> Iterator[tuple[str, Found]]:
    """Structures of the files in an archive; an error if there are none."""
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for member, stream in _members(path):
            count += 1
            file = Path(folder) / Path(member).name  # no folders of the member: stays inside
            try:
                with stream as source, open(file, "wb") as target:
                    shutil.copyfileobj(source, target)
            except Exception as error:
                yield f"{name}/{member}", _unreadable(f"{name}/{member}", error)
                continue
            yield from structures_in(file, f"{name}/{member}")
            file.unlink()
    if not count:
        yield name, ValueError(f"{name} has no file of structures.")


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    """Names and open streams of the files in an archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and is_structure_name(entry.filename):
                    yield printable(entry.filename), _opened(archive.open, entry)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and is_structure_name(member.name):
                yield printable(member.name), _opened(archive.extractfile, member)


@contextmanager
def _opened(opener: Callable[[Any], Any], entry: Any) -> Iterator[Any]:
    with opener(entry) as stream:
        yield stream


def _structures(path: Path, head: bytes, name: str) -> Iterator[Found]:
    """Structures of a file that is not an archive; an error ends the iteration."""
    count, form = 0, ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for magic, unpack in UNPACK.items():
                if head.startswith(magic):  # unpacked first: seeking in a compressed stream would take ASE minutes
                    inner = path.stem if path.suffix.lower() in PACKED else path.name
                    packed, path = path, Path(folder) / inner
                    with unpack(packed, "rb") as source, open(path, "wb") as target:
                        shutil.copyfileobj(source, target)
                    head = _head(path, name)
                    break
            encoding = next((found for mark, found in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
            form = _format(path, head.decode(encoding, "ignore"))
            for found in _plain(path, encoding, form):
                where = f"structure {count}: " if count else ""
                yield _unreadable(name, found, where, form) if isinstance(found, Exception) else found
                count += 1
        except Exception as error:
            yield _unreadable(name, error, f"from structure {count} on, " if count else "", form)


def _plain(path: Path, encoding: str, form: str) -> Iterator[Found]:
    """Structures of an uncompressed file."""
    if not ioformats[form].acceptsfd:
        yield from iread(str(path), ":", format=form, do_not_split_by_at_sign=True)
    elif ioformats[form].isbinary and form not in BLOCKS:
        with open(path, "rb") as binary:
            yield from iread(binary, ":", format=form)
    else:
        with open(path, encoding=encoding, errors="backslashreplace") as stream:
            yield from BLOCKS[form](stream) if form in BLOCKS else iread(stream, ":", format=form)


def _format(path: Path, head: str) -> str:
    """ASE's name of a file's format.

    Raises:
        ValueError: for a file of unknown format.
    """
    if path.suffix.lower() in ENDINGS:
        return ENDINGS[path.suffix.lower()]
    upper = path.name.upper()
    if "VASP" in upper and upper.endswith(".XML"):
        return "vasp-xml"
    if (named := next((form for part, form in NAMES.items() if part in upper), None)) is not None:
        return named
    with tempfile.TemporaryDirectory() as folder:  # ASE detects the format from the file's name and first bytes
        copy = Path(folder) / path.name
        copy.write_text(head, encoding="utf-8", errors="backslashreplace")
        try:
            form = filetype(str(copy))
        except UnknownFileTypeError:
            form = ""
    if form not in ioformats or not ioformats[form].can_read:
        raise ValueError("its format cannot be detected from its name or first lines; see `ase info --formats`.")
    return form


def _unreadable(name: str, error: Exception, where: str = "", form: str = "") -> Exception:
    """Error with the file's name; errors that have it already, and errors of the file system, are unchanged."""
    if str(error).startswith(name) or isinstance(error, FileNotFoundError | PermissionError | MemoryError):
        return error
    wrapped = ValueError(f"{name} cannot be read: {where}{why_unreadable(error, form)}")
    wrapped.__cause__ = error
    return wrapped
