"""Base classes of Monte Carlo moves: changes of the atoms in place that can be undone."""

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_andersonn.deprecated import MOVE_METHODS, rename_overrides, warn_renamed
from ase_andersonn.mc.context import Context
from ase_andersonn.mc.criteria import accepted
from ase_andersonn.mc.local_energy import Energies
from ase_andersonn.mc.statistics import MoveRecord

Ints = NDArray[np.int64]

EXCHANGED = "chemical potential of "
TRANSMUTED = "relative chemical potential of "


@dataclass(slots=True)
class Trial:
    """Trial change of the atoms, before acceptance or rejection.

    Args:
        changed: int64 [n_changed], changed atoms; all atoms if the cell or their number changed.
        log_ratio: contribution r of ensemble and proposal to -dE / kT, see `criteria`.
        saved: previous values, to undo the change.
    """

    changed: Ints
    log_ratio: float
    saved: Any

    @property
    def touched(self) -> Ints:
        """Deprecated name of `changed`."""
        warn_renamed("Trial.touched", "changed")
        return self.changed


class Move(ABC):
    """Base of moves. Subclasses are dataclasses whose fields are their settings.

    Attributes:
        changes: quantities that an accepted move changes: positions, numbers, magmoms, cell, count.
        varies_composition: whether it changes the composition.
    """

    changes: ClassVar[frozenset[str]]
    varies_composition: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        rename_overrides(cls, MOVE_METHODS)

    @abstractmethod
    def check(self, context: Context) -> None:
        """Raise ValueError if the move cannot be used with the atoms."""

    @abstractmethod
    def propose(self, context: Context) -> Trial | None:
        """Make a random change of the atoms; None, without any change, if no change is possible."""

    @abstractmethod
    def undo(self, context: Context, trial: Trial) -> None:
        """Undo the change exactly."""

    def commit(self, context: Context, trial: Trial) -> None:  # noqa: B027 (most need not)
        """Update indices derived from the atoms after an accepted change."""

    def fields(self) -> dict[str, float]:
        """Pressures and chemical potentials by name; they must be the same in all moves of a simulation."""
        return {}

    def log_weight(self, atoms: Atoms, temperature_K: float) -> dict[str, float]:  # noqa: ARG002
        """Contribution of each of `fields` to the logarithm of a structure's probability, for replica exchange."""
        return {}

    def attempt(self, context: Context, energies: Energies, energy: float, record: MoveRecord) -> float:
        """One Metropolis step from a state of this energy; returns the energy of the next state, eV."""
        record.attempted += 1
        trial = self.propose(context)
        if trial is None:
            record.impossible += 1
            return energy
        try:
            proposed = energies.trial_energy(trial.changed)
        except BaseException:
            self.undo(context, trial)
            raise
        if accepted(trial.log_ratio, proposed - energy, context.kT, context.rng):
            self.commit(context, trial)
            context.changed(self.changes)
            energies.commit(True)
            record.accepted += 1
            return proposed
        record.nonfinite += not math.isfinite(proposed)
        self.undo(context, trial)
        energies.commit(False)
        return energy

    def settings(self) -> dict[str, Any]:
        """Settings of the move as JSON, without adapted values."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "step"}  # type: ignore[arg-type]
        return {"move": type(self).__name__, **{name: _plain(value) for name, value in values.items()}}


class Adaptive(Move):
    """Base of moves with a step size, which is adapted to a target acceptance during equilibration.

    Attributes:
        step: current step size.
        target: target acceptance ratio.
        largest: upper bound of the step size.
    """

    step: float
    target: float
    largest: ClassVar[float]

    def adapt(self, acceptance: float) -> None:
        """Increase the step size if the acceptance is above the target, decrease it otherwise."""
        self.step = max(min(self.step * math.exp(acceptance - self.target), self.largest), 1e-8)

    def check_step(self, unit: str) -> None:
        """Raise ValueError for an invalid step size or target."""
        if not (math.isfinite(self.step) and 0.0 < self.step <= self.largest):
            raise ValueError(
                f"the step of {type(self).__name__} is {self.step}; it has to be positive and at most "
                f"{self.largest} {unit}."
            )
        if not 0.0 < self.target < 1.0:
            raise ValueError(
                f"the target of {type(self).__name__} is {self.target}; it is a share of accepted moves, between 0 "
                "and 1."
            )


def check_fields(moves: Sequence[Move]) -> dict[str, float]:
    """Pressures and chemical potentials of all moves.

    Raises:
        ValueError: if two moves have different values.
    """
    found: dict[str, float] = {}
    for move in moves:
        for name, value in move.fields().items():
            if found.setdefault(name, value) != value:
                raise ValueError(
                    f"the {name} is {found[name]} in one move and {value} in another; moves used together "
                    "sample one ensemble: give the same number to both."
                )
    exchanged, transmuted = (
        {name.removeprefix(kind) for name in found if name.startswith(kind)} for kind in (EXCHANGED, TRANSMUTED)
    )
    if both := sorted(exchanged & transmuted):
        raise ValueError(
            f"{', '.join(both)} is both exchanged with a reservoir and transmuted, and the chemical potentials of the "
            "two moves mean different things. Exchange each of the species instead."
        )
    return found


def check_indices(indices: Any, n_atoms: int) -> None:
    """Raise ValueError for indices out of range."""
    if indices is not None and len(indices) and not (indices.min() >= 0 and indices.max() < n_atoms):
        raise ValueError(
            f"indices reach from {indices.min()} to {indices.max()}; the structure has the atoms 0 to {n_atoms - 1}."
        )


def as_indices(indices: Any) -> Ints | None:
    """Sorted unique indices; None for all atoms.

    Raises:
        ValueError: if it is not a list of integers.
    """
    if indices is None:
        return None
    found = np.asarray(indices)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueError(f"indices are {indices!r}; a list of atom indices, or None for all, is expected.")
    unique: Ints = np.unique(found.astype(np.int64))
    return unique


def number_of(symbol: str) -> int:
    """Atomic number of a chemical symbol.

    Raises:
        ValueError: if it is not a symbol.
    """
    if symbol not in atomic_numbers:
        raise ValueError(f"{symbol!r} is not a chemical symbol; give one such as 'Cu'.")
    return int(atomic_numbers[symbol])


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return f"{len(value)} indices, crc32 {zlib.crc32(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value
