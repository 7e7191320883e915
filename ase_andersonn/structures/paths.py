"""Resolution of file names, folders, glob patterns and SMILES. Imports only the standard library."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

OTHER_SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".txt", ".md", ".csv", ".yaml", ".yml", ".py")
"""Suffixes of files in folders and archives that are skipped, as they are not structures."""


def expand(patterns: Iterable[str], skip: Iterable[Path] = ()) -> list[Path]:
    """Files matched by names, folders and glob patterns, each once, in the given order.

    Args:
        patterns: names and patterns.
        skip: files to leave out, such as output files.

    Raises:
        FileNotFoundError: for a pattern without a matching file.
        OSError: for a folder that cannot be read.
    """
    paths: dict[Path, None] = {}
    left_out = {path.resolve() for path in skip}
    for pattern in patterns:
        found = [path for path in files_of(pattern) if not left_out or path.resolve() not in left_out]
        if not found:
            raise FileNotFoundError(f"no file matches {pattern!r} (working directory {Path.cwd()}).")
        paths.update(dict.fromkeys(found))
    return list(paths)


def files_of(pattern: str, skip: Path | None = None) -> list[Path]:
    """Sorted files matched by one name, folder or glob pattern; may be empty.

    A folder matches all files in it and in its subfolders, except hidden ones and those with `OTHER_SUFFIXES`.

    Args:
        pattern: name or pattern.
        skip: a file to leave out of folders and patterns, such as the output table.

    Raises:
        OSError: for a folder that cannot be read.
    """
    if os.path.isfile(pattern):
        return [Path(pattern)]
    matches = [pattern] if os.path.isdir(pattern) else sorted(glob.glob(pattern, recursive=True))
    found = [file for match in matches for file in (_walk(Path(match)) if os.path.isdir(match) else [Path(match)])]
    return [file for file in dict.fromkeys(found) if skip is None or file.resolve() != skip.resolve()]


def is_structure_name(name: str) -> bool:
    """Whether a file in a folder or an archive is read as a structure file."""
    return not any(map(_hidden, name.split("/"))) and not name.lower().endswith(OTHER_SUFFIXES)


def check_sources(given: Sequence[str]) -> None:
    """Raise the first error if none of the sources is a file, a folder or pattern with files, or a SMILES.

    Raises:
        FileNotFoundError, ValueError: in that case; otherwise unusable sources give errors later, one by one.
    """
    wrong: list[Exception] = []
    for text in given:
        if files_of(text):
            return
        try:
            if os.path.isdir(text):
                raise ValueError(f"there is no structure in {text}: the folder has no structure file.")
            molecule_of(text)
            return
        except (FileNotFoundError, ValueError) as error:
            wrong.append(error)
    raise wrong[0] if wrong else ValueError("no structures are given.")


def molecule_of(smiles: str) -> Any:
    """RDKit molecule of a SMILES.

    Raises:
        FileNotFoundError: if the string is not a SMILES, or RDKit is not installed.
    """
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise FileNotFoundError(
            f"there is no file {smiles!r} (working directory {Path.cwd()}); to read it as a SMILES, install rdkit."
        ) from error
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise FileNotFoundError(f"{smiles!r} is neither a file nor a SMILES (working directory {Path.cwd()}).")
    return molecule


def _hidden(part: str) -> bool:
    return part == "__MACOSX" or (part.startswith(".") and part not in (".", ".."))


def printable(path: str | Path) -> str:
    """Name as printable text; bytes that are not UTF-8 are escaped, as in `caf\\xe9.cif`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: Path) -> Iterator[Path]:
    """Files of a folder and its subfolders, following links; each folder once."""
    known: set[str] = set()
    files: list[Path] = []

    def failed(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        folders[:] = [name for name in folders if not _hidden(name)]
        if (real := os.path.realpath(root)) in known:
            folders.clear()
            continue
        known.add(real)
        files += [Path(root, name) for name in names if is_structure_name(name)]
    yield from sorted(files)
