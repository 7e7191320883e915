"""Partial sums over finished tiles, and the file from which an evaluation resumes."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_andersonn.atomic_write import check_folder
from ase_andersonn.checksum import read_arrays, write_arrays
from ase_andersonn.lock import Lock
from ase_andersonn.potentials.base import EnergyModel

from .grid import Floats

MIN_SAVE_INTERVAL = 60.0
"""Least time between two writings of the work file, s."""
MAX_SAVE_SHARE = 0.05
"""Largest share of the time spent on writing it."""


@dataclass
class PartialSums:
    """Sums over the finished tiles.

    Args:
        tile_energies: [n_tiles], eV.
        energies: [n_atoms], eV.
        forces: [n_atoms, 3], eV/Å, or None.
        virials: [n_atoms, 3, 3], eV, or None.
        done: number of finished tiles among those that are not empty, in order.
        batch: number of tiles of the next batch.
    """

    tile_energies: Floats
    energies: Floats
    forces: Floats | None
    virials: Floats | None
    done: int = 0
    batch: int = 0

    @staticmethod
    def empty(n_tiles: int, n_atoms: int, *, forces: bool, stress: bool) -> "PartialSums":
        return PartialSums(
            np.zeros(n_tiles),
            np.zeros(n_atoms),
            np.zeros((n_atoms, 3)) if forces else None,
            np.zeros((n_atoms, 3, 3)) if stress else None,
        )


def fingerprint(atoms: Atoms, model: EnergyModel, settings: Any) -> str:
    """Hash of structure, model and settings, on which the sums depend."""
    about = repr((settings, type(model).__name__, model.config))
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for array in (atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).data)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class ResumeFile:
    """File of partial sums, from which an interrupted evaluation resumes.

    Args:
        path: the file; None for no file.
        key: hash from `fingerprint`.
    """

    def __init__(self, path: str | os.PathLike[str] | None, key: str) -> None:
        self.path, self.key = None if path is None else Path(path), key
        self._saved, self._took = time.monotonic(), 0.0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file against other evaluations within the context.

        Raises:
            InUseError: if another one does.
        """
        if self.path is None:
            yield
            return
        check_folder(self.path)
        remedy = "Wait until it has ended, stop it, or give another work file."
        with Lock(self.path.with_name(f".{self.path.name}.lock"), f"the work file {self.path}", remedy):
            yield

    def load(self) -> PartialSums | None:
        """Saved sums of the same evaluation; None if there is no file.

        Raises:
            ValueError: if the file belongs to another evaluation, is damaged, or is not a work file.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            found, has_checksum = read_arrays(self.path)
            if not has_checksum:
                raise ValueError("it has no checksum: it is damaged, or an earlier version of this package wrote it")
            if not {"key", "tile_energies", "energies", "done", "batch"} <= found.keys():
                raise ValueError("it is a file of another kind")
        except ValueError as error:
            raise ValueError(
                f"{self.path} is not a work file of a tiled evaluation that can be read ({error}). Remove it to start "
                "over, or give another work file."
            ) from error
        if str(found["key"]) != self.key:
            raise ValueError(
                f"{self.path} belongs to another structure, model or setting; remove it, or give another work file."
            )
        arrays = {name: found.get(name) for name in ("tile_energies", "energies", "forces", "virials")}
        return PartialSums(**arrays, done=int(found["done"]), batch=int(found["batch"]))  # type: ignore[arg-type]

    def save(self, sums: PartialSums, *, now: bool = False) -> None:
        """Write the sums atomically, unless the last writing is too recent."""
        passed = time.monotonic() - self._saved
        if self.path is None or not (now or passed > max(MIN_SAVE_INTERVAL, self._took / MAX_SAVE_SHARE)):
            return
        begun = time.monotonic()
        arrays = {name: np.asarray(value) for name, value in vars(sums).items() if value is not None}
        write_arrays(self.path, {"key": np.array(self.key), **arrays})
        self._saved = time.monotonic()
        self._took = self._saved - begun

    def remove(self) -> None:
        """Remove the file of a finished evaluation."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
