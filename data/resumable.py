"""Labelled structures, one after another into an extended XYZ file; a run that was interrupted goes on."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path

from ase import Atoms
from ase.io import read, write
from tqdm import tqdm


def collect(output: Path, numbers: Iterable[int], key: str, make: Callable[[int], Atoms]) -> None:
    """Append `make(number)` for every number that the file does not hold yet; where that fails, say so and go on.

    Args:
        output: the file; a frame that was being written when a run was interrupted is dropped and made again.
        numbers: of the structures.
        key: under which a frame's number stands in its comment line.
        make: the labelled structure of a number, whatever else the file holds.
    """
    done = {int(frame.info[key]) for frame in whole_frames(output)}
    written = left_out = 0
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
        append(output, atoms)
        written += 1
    print(f"{output}: {len(done)} were there, {written} added, {left_out} left out")


def append(output: Path, atoms: Atoms) -> None:
    """One more frame, in one piece; a third smaller without the blanks that align its columns."""
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    count, comment, *rows = text.getvalue().splitlines()
    with output.open("a", encoding="utf-8") as stream:
        stream.write("\n".join([count, comment, *(" ".join(row.split()) for row in rows)]) + "\n")


def whole_frames(path: Path) -> list[Atoms]:
    """The complete frames of the file; a last one cut short by an interruption is removed from it."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    start = 0
    while start < len(lines):
        end = start + int(lines[start]) + 2
        if end > len(lines) or not lines[end - 1].endswith("\n"):
            break
        start = end
    if start < len(lines):
        temporary = path.with_suffix(".part")
        temporary.write_text("".join(lines[:start]), encoding="utf-8")
        temporary.replace(path)
    return read(path, ":", format="extxyz") if start else []
