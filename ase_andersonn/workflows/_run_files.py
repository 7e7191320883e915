"""Files of a simulation: its state, its trajectory, its log.

A state is NumPy's npz with a checksum (`ase_andersonn.checksum`), written whole or not at all; it holds how many
frames and how much of the log belong to it, and what a killed run wrote after it is cut off before the run goes on.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter
from numpy.typing import NDArray

from ase_andersonn.atomic_write import check_folder, why_unwritable
from ase_andersonn.checksum import read_arrays, write_arrays
from ase_andersonn.lock import Lock
from ase_andersonn.mc.state_file import check_same

KIND = "molecular dynamics 1"


@dataclass(frozen=True)
class Paths:
    """What a run writes, each if it is given."""

    trajectory: Path | None = None
    log: Path | None = None
    restart: Path | None = None

    def check(self, resume: bool) -> None:
        """Raise ValueError or OSError for files that cannot be written, and for a state that would be lost."""
        given = [path for path in (self.trajectory, self.log, self.restart) if path is not None and str(path) != "-"]
        if len({path.resolve() for path in given}) < len(given):
            raise ValueError(f"trajectory, log and restart are {', '.join(map(str, given))}; name different files.")
        for path, ending in ((self.trajectory, ".traj"), (self.restart, ".npz")):
            if path is not None and path.suffix != ending:
                raise ValueError(f"{path} has an unknown ending; ASE's trajectories are .traj, restart files .npz.")
        for path in given:
            check_folder(path)
            if why := why_unwritable(path):
                raise OSError(f"{path} cannot be written: {why}.")
        if resume and self.restart is None:
            raise ValueError("resume needs the restart file that the run was begun with.")
        if self.restart is not None and self.restart.exists() and not resume:
            raise ValueError(f"{self.restart} is there already; resume goes on with its run. Else remove it first.")

    def lock(self) -> Lock | None:
        """Held while a run goes on with the restart file."""
        if self.restart is None:
            return None
        remedy = "Wait until that has ended, stop it, or name another file as restart."
        return Lock(self.restart.with_name(f".{self.restart.name}.lock"), f"the state file {self.restart}", remedy)


@dataclass(frozen=True)
class State:
    """All that a run needs to go on: arrays, and the rest as JSON, whose floats come back bit for bit."""

    arrays: Mapping[str, NDArray[Any]]
    rest: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Replace the file, or leave it as it is."""
        text = np.frombuffer(json.dumps({"kind": KIND, **self.rest}).encode(), np.uint8)
        write_arrays(path, {"state": text, **self.arrays})

    @classmethod
    def read(cls, path: Path) -> "State":
        """The state in a file.

        Raises:
            ValueError: for a file that is none, or is damaged.
        """
        try:
            arrays, has_checksum = read_arrays(path)
            if not has_checksum or "state" not in arrays:
                raise ValueError("it is a file of another kind")
            rest = json.loads(arrays.pop("state").tobytes())
            if rest.pop("kind", None) != KIND:
                raise ValueError("it is a file of another kind")
        except ValueError as error:
            raise ValueError(
                f"{path} is no state of molecular dynamics that can be read ({error}). Move it away to begin anew, "
                "put a copy in its place, or name another file as restart."
            ) from error
        return cls(arrays, rest)

    def check(self, path: Path, atoms: Atoms, settings: Mapping[str, Any]) -> None:
        """Raise ValueError for a state of another structure or of other settings."""
        if self.rest["structure"] != fingerprint(atoms):
            raise ValueError(
                f"{path} belongs to a run that began with another structure ({self.rest['formula']}; this is "
                f"{atoms.get_chemical_formula()}). Give that one, or move the file away to begin anew."
            )
        check_same(path, self.rest["settings"], dict(settings))


def fingerprint(atoms: Atoms) -> str:
    """A text that structures with other elements, positions, cell, momenta, or constraints do not share."""
    digest = hashlib.sha256()
    for name in ("numbers", "positions", "momenta", "masses"):
        if atoms.has(name):
            digest.update(name.encode() + np.ascontiguousarray(atoms.arrays[name]).tobytes())
    digest.update(atoms.cell.array.tobytes() + np.asarray(atoms.pbc).tobytes())
    digest.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return digest.hexdigest()


class Frames:
    """The trajectory, ASE's, of which the first `kept` frames stay."""

    def __init__(self, path: Path, kept: int) -> None:
        self.path, self.n = path, kept
        if kept:
            _cut_frames(path, kept)
        self._writer = TrajectoryWriter(path, mode="a" if kept else "w")

    def add(self, atoms: Atoms, **info: float) -> None:
        """Append the structure, with entries for the `atoms.info` of the frame."""
        before = atoms.info
        atoms.info = {**before, **info}
        try:
            self._writer.write(atoms)
        finally:
            atoms.info = before
        self.n += 1

    def sync(self) -> None:
        """Have the frames on the disk."""
        handle = os.open(self.path, os.O_RDWR)
        os.fsync(handle)
        os.close(handle)

    def close(self) -> None:
        """No more frames."""
        self._writer.close()


class Log:
    """A text of one line a row, of which the first `kept` bytes stay; "-" is the screen.

    Args:
        path: of the text.
        kept: bytes.
        columns: headings, and the formats of the values below.
    """

    def __init__(self, path: Path, kept: int, columns: Mapping[str, str]) -> None:
        self._screen, self._formats = str(path) == "-", list(columns.values())
        self._widths = [max(len(name), 10) for name in columns]
        header = self._line(list(columns))
        if self._screen:
            sys.stdout.write(header)
            return
        if kept and (not path.is_file() or path.stat().st_size < kept):
            raise ValueError(f"{path} is shorter than when the state was saved. Leave out the log, or begin anew.")
        self._file = open(path, "r+b" if kept else "wb")  # noqa: SIM115 (closed with the run)
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._file.write(header.encode())
            self._file.flush()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return 0 if self._screen else self._file.tell()

    def add(self, *values: float) -> None:
        """Append a line."""
        line = self._line([format(value, form) for value, form in zip(values, self._formats, strict=True)])
        if self._screen:
            sys.stdout.write(line)
        else:
            self._file.write(line.encode())
            self._file.flush()

    def _line(self, texts: Sequence[str]) -> str:
        return " ".join(f"{text:>{width}}" for text, width in zip(texts, self._widths, strict=True)) + "\n"

    def close(self) -> None:
        """No more lines."""
        if not self._screen:
            self._file.close()


def _cut_frames(path: Path, kept: int) -> None:
    """Leave the first frames only; the file is replaced whole."""
    remedy = "Leave out the trajectory, or begin anew."
    try:
        reader = TrajectoryReader(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({error}), and the run goes on with it. {remedy}") from error
    with reader:
        if len(reader) < kept:
            raise ValueError(f"{path} has {len(reader)} frames, and had {kept} when the state was saved. {remedy}")
        if len(reader) == kept:
            return
        partial = path.with_name(f".{path.name}.cut")
        try:
            with TrajectoryWriter(partial, mode="w") as writer:
                for k in range(kept):
                    writer.write(reader[k])
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
