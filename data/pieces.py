"""Results in numbered pieces of one file each, whole or absent; an interrupted run makes those that are missing."""

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


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
