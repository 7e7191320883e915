"""Frames of a trajectory as arrays, and averages of correlated series with their errors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ase_andersonn.mc.statistics import Blocking, Estimate

from ._evaluate import check_positive

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """A trajectory of one set of atoms.

    Attributes:
        images: the frames.
        spacing: fs between two of them; nan where unknown.
    """

    images: Sequence[Atoms]
    spacing: float

    @property
    def first(self) -> Atoms:
        return self.images[0]

    def timed(self) -> float:
        """The spacing, fs.

        Raises:
            ValueError: where it is not known.
        """
        if not np.isfinite(self.spacing):
            raise ValueError("the frames have no times (info['time'], fs); give their spacing, fs.")
        return self.spacing

    def volumes(self) -> Floats:
        """Å³.

        Raises:
            ValueError: for what does not repeat in three directions.
        """
        if not all(atoms.pbc.all() for atoms in self.images):
            raise ValueError(f"only what repeats in three directions has a volume; pbc is {self.first.pbc.tolist()}.")
        return np.array([atoms.cell.volume for atoms in self.images])

    def energies(self) -> Floats:
        """Potential energies, eV.

        Raises:
            ValueError: where a frame has none.
        """
        return np.array([_result(atoms, "energy", k) for k, atoms in enumerate(self.images)], dtype=float)

    def stresses(self) -> Floats:
        """[n_frames, 6], eV/Å³, without that of the motion; errors as `energies`."""
        return np.array([_result(atoms, "stress", k) for k, atoms in enumerate(self.images)], dtype=float)

    def velocities(self) -> Floats:
        """[n_frames, n_atoms, 3], Å/fs, without that of the whole.

        Raises:
            ValueError: where a frame has none.
        """
        if not all(atoms.has("momenta") for atoms in self.images):
            raise ValueError("the frames have no velocities; write the trajectory with momenta (ASE's .traj has them).")
        mass = self.first.get_masses()
        found = np.array([atoms.get_velocities() for atoms in self.images]) * units.fs
        return np.asarray(found - np.einsum("tix,i->tx", found, mass)[:, None] / mass.sum())

    def paths(self) -> Floats:
        """[n_frames, n_atoms, 3], Å: positions unwrapped, from the centre of mass.

        An atom is taken to move by less than half a cell between two frames.
        """
        fractions = np.array([atoms.get_scaled_positions(wrap=False) for atoms in self.images])
        steps = np.diff(fractions, axis=0)
        steps -= np.where(self.first.pbc, np.round(steps), 0.0)
        cells = np.array([atoms.cell.complete().array for atoms in self.images])
        found = np.cumsum(np.concatenate([fractions[:1], steps]), axis=0) @ cells
        mass = self.first.get_masses()
        return np.asarray(found - np.einsum("tix,i->tx", found, mass)[:, None] / mass.sum())

    def atoms_of(self, symbol: str | None) -> NDArray[np.int64]:
        """Indices of the atoms of an element, or of all.

        Raises:
            ValueError: where there is none of it.
        """
        symbols = np.array(self.first.get_chemical_symbols())
        chosen = np.flatnonzero(np.ones(len(symbols), bool) if symbol is None else symbols == symbol)
        if not len(chosen):
            raise ValueError(f"there is no {symbol!r} in {self.first.symbols}.")
        return chosen


def read_frames(source: Any, spacing: float | None = None, skip: int = 0) -> Frames:
    """The frames of a trajectory.

    Args:
        source: a path that ASE reads, or structures.
        spacing: fs between frames; None for that of `info["time"]`, which `molecular_dynamics` writes.
        skip: frames at the beginning that are left out, as equilibration.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for fewer than two frames, frames of different atoms, or at unequal times.
    """
    if spacing is not None:
        check_positive(spacing=spacing)
    if isinstance(source, str | Path):
        from ase.io import read

        if not Path(source).is_file():
            raise FileNotFoundError(f"there is no file {source}.")
        try:
            images = list(read(source, ":"))
        except Exception as error:  # what ASE's readers raise is not a closed list
            raise ValueError(f"{source} cannot be read as a trajectory: {error or type(error).__name__}") from error
    elif isinstance(source, Iterable) and not isinstance(source, Atoms):
        images = list(source)
    else:
        raise TypeError(f"a trajectory is a path or a list of Atoms; {type(source).__name__} was given.")
    if skip < 0 or len(images) - skip < 2:
        raise ValueError(f"{len(images)} frames without the first {skip} are no trajectory; two are needed at least.")
    images = images[skip:]
    for k, atoms in enumerate(images):
        if not np.array_equal(atoms.numbers, images[0].numbers):
            raise ValueError(f"frame {k + skip} holds other atoms than the first; a trajectory is of one set of atoms.")
    return Frames(images, _spacing(images) if spacing is None else float(spacing))


def _spacing(images: Sequence[Atoms]) -> float:
    times = [atoms.info.get("time") for atoms in images]
    if any(time is None for time in times):
        return float("nan")
    gaps = np.diff(np.array(times, dtype=float))
    if not np.allclose(gaps, gaps[0], rtol=1e-6) or gaps[0] <= 0:
        raise ValueError(f"the frames are not equally spaced in time: from {gaps.min():g} to {gaps.max():g} fs.")
    return float(gaps[0])


def _result(atoms: Atoms, name: str, k: int) -> Any:
    found = getattr(atoms.calc, "results", {}).get(name)
    if found is None:
        raise ValueError(f"frame {k} has no {name}; write the trajectory with the calculator's results.")
    return found


def average(series: Iterable[float]) -> Estimate:
    """Mean of a correlated series with its standard error, by blocking (Flyvbjerg and Petersen)."""
    blocking = Blocking()
    for value in series:
        blocking.add(float(value))
    return blocking.estimate()


def averages(series: Floats) -> tuple[Floats, Floats]:
    """Means and standard errors of the columns of [n, m]."""
    found = [average(column) for column in np.asarray(series).T]
    return np.array([one.mean for one in found]), np.array([one.error for one in found])
