"""Labelled structures, one after another into a file or in pieces of one file each; an interrupted run goes on."""

import io
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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


def in_pieces(folder: Path, pieces: Iterable[int], make: Callable[[int, Path], str], seconds: float = math.inf) -> None:
    """Make a file of every number that the folder does not hold yet, say how it goes and how long it will go on.

    Args:
        folder: of the files, `000000.npz` and so on; each is there whole or not at all.
        pieces: their numbers.
        make: writes the file of a number and returns a word about it; its result depends on the number alone.
        seconds: after which no piece is begun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = list(pieces)
    missing = [number for number in numbers if not (folder / f"{number:06d}.npz").exists()]
    begun = time.monotonic()
    print(f"{folder}: {len(numbers) - len(missing)} of {len(numbers)} pieces are there", flush=True)
    for count, number in enumerate(missing):
        spent = time.monotonic() - begun
        if spent > seconds:
            print(f"{folder}: time is up, {len(missing) - count} pieces are missing; the same command goes on")
            return
        path = folder / f"{number:06d}.npz"
        said = make(number, path)
        left = (time.monotonic() - begun) / (count + 1) * (len(missing) - count - 1)
        print(f"{path.name}: {said}; {clock(left)} left for {len(missing) - count - 1} pieces", flush=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note what the pieces of a folder are made with; a folder of other settings is refused.

    Raises:
        ValueError: where the folder was begun with others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, settings = folder / "settings.json", json.loads(json.dumps(settings))
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [
            f"{key} {before.get(key)!r}, now {settings.get(key)!r}"
            for key in {**before, **settings}
            if before.get(key) != settings.get(key)
        ]
        if differ:
            raise ValueError(f"{folder} was begun with {'; '.join(differ)}. Take another folder, or the same settings.")
        return
    temporary = path.with_name(f"settings-{os.getpid()}.part")
    temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    temporary.replace(path)


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
