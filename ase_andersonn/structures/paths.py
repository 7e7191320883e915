"""What names, folders, glob patterns and SMILES stand for. Importing this loads the standard library alone."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

OTHERS = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".txt", ".md", ".csv", ".yaml", ".yml", ".py")
"""Endings of files in folders and archives that are no structures, such as notes and the picture of the last run."""


def expand(patterns: Iterable[str], skip: Iterable[Path] = ()) -> list[Path]:
    """The files that names, folders and glob patterns stand for, each once, in the order given.

    Args:
        patterns: names and patterns.
        skip: files that are left out, as those that are to be written.

    Raises:
        FileNotFoundError: for a pattern that stands for no file.
        OSError: for a folder that cannot be read.
    """
    paths: dict[Path, None] = {}
    left_out = {path.resolve() for path in skip}
    for pattern in patterns:
        found = [path for path in files_of(pattern) if not left_out or path.resolve() not in left_out]
        if not found:
            raise FileNotFoundError(f"no file matches {pattern!r}, seen from {Path.cwd()}.")
        paths.update(dict.fromkeys(found))
    return list(paths)


def files_of(pattern: str, skip: Path | None = None) -> list[Path]:
    """The files of one name, folder or glob pattern, sorted; none where it stands for nothing.

    Of a folder these are all files in it and in its folders, but `OTHERS` and what begins with a dot.

    Args:
        pattern: name or pattern.
        skip: a file that is left out of folders and patterns, as the table that is to be written.

    Raises:
        OSError: for a folder that cannot be read.
    """
    if os.path.isfile(pattern):
        return [Path(pattern)]
    matches = [pattern] if os.path.isdir(pattern) else sorted(glob.glob(pattern, recursive=True))
    found = [file for match in matches for file in (_walk(Path(match)) if os.path.isdir(match) else [Path(match)])]
    return [file for file in dict.fromkeys(found) if skip is None or file.resolve() != skip.resolve()]


def is_structure_name(name: str) -> bool:
    """Whether a file of a folder or an archive is taken for one of structures."""
    return not any(map(_hidden, name.split("/"))) and not name.lower().endswith(OTHERS)


def check_sources(given: Sequence[str]) -> None:
    """Raise the first error where nothing that is given is a file, a folder with files, a pattern of files or a SMILES.

    Raises:
        FileNotFoundError, ValueError: in that case; where anything can be used, the others are errors of their own.
    """
    wrong: list[Exception] = []
    for text in given:
        if files_of(text):
            return
        try:
            if os.path.isdir(text):
                raise ValueError(f"there is no structure in {text}: the folder has no file that may hold one.")
            molecule_of(text)
            return
        except (FileNotFoundError, ValueError) as error:
            wrong.append(error)
    raise wrong[0] if wrong else ValueError("nothing is given to be labelled.")


def molecule_of(smiles: str) -> Any:
    """RDKit's molecule of a SMILES.

    Raises:
        FileNotFoundError: if the string is no SMILES, or RDKit is not installed to read it.
    """
    try:
        from rdkit import Chem, rdBase
    except ImportError as error:
        raise FileNotFoundError(
            f"there is no file {smiles!r}, seen from {Path.cwd()}; to read it as a SMILES, install rdkit."
        ) from error
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise FileNotFoundError(f"{smiles!r} is neither a file, seen from {Path.cwd()}, nor a SMILES.")
    return molecule


def _hidden(part: str) -> bool:
    return part == "__MACOSX" or (part.startswith(".") and part not in (".", ".."))


def printable(path: str | Path) -> str:
    """A name as text that every encoding holds; bytes that are no UTF-8 are escaped, as `caf\\xe9.cif`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: Path) -> Iterator[Path]:
    """The files of a folder, through links as well; each folder once."""
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
