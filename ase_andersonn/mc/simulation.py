"""State of a Monte Carlo simulation: saving, restarting, and consistency with its atoms."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from .context import Context
from .driver import Driver
from .local_energy import Energies, LocalEnergies, check_finite
from .moves.base import Adaptive, Move
from .state_file import (
    Arrays,
    StateFile,
    arrays_to_atoms,
    atoms_to_arrays,
    check_atoms_fit,
    check_same,
    fingerprint,
    save,
)
from .statistics import Blocking, MoveRecord
from .sublattice import Sublattice


class EnergyMismatchError(RuntimeError):
    """The running energy differs from the energy of the atoms."""


class Simulation(Driver):
    """Base of `MetropolisMC` that handles its state; see there for the attributes."""

    atoms: Atoms
    moves: list[Move]
    context: Context
    energies: Energies
    energy: float
    seed: Any
    restart: Path | None
    state_file: StateFile | None
    check_tolerance: float
    temperature_K: float
    _settings: dict[str, Any]
    _records: list[MoveRecord]
    _windows: list[list[int]]
    _blocking: Blocking
    _last_fingerprint: int | None = None  # fingerprint of the atoms after the last run

    def begin(self) -> None:
        """Call `refresh` if the atoms were changed since the last run."""
        if self._last_fingerprint != fingerprint(self.atoms):
            self.refresh()
        self._last_fingerprint = None  # an interrupted run leaves atoms in an unknown state

    def end(self) -> None:
        """Store the fingerprint of the atoms at the end of a run."""
        self._last_fingerprint = fingerprint(self.atoms)

    def check_energy(self) -> None:
        """Compare the running energy to a full evaluation, and replace it by that.

        Raises:
            EnergyMismatchError: if they differ by more than `check_tolerance`, eV/atom.
        """
        running, energy = self.energy, self.energies.fresh()
        if not abs(running - energy) <= self.check_tolerance * max(len(self.atoms), 1):
            raise EnergyMismatchError(
                f"after {self.nsteps} steps the running energy is {running!r} eV and a full evaluation gives "
                f"{energy!r} eV; they differ by {abs(running - energy) / max(len(self.atoms), 1):.1e} eV/atom, and "
                f"{self.check_tolerance:.1e} is allowed. If an observer changed the atoms it has to call refresh(); "
                "otherwise the calculator's local energies are wrong or too imprecise (local=False does not use them)."
            )
        self.energy = energy

    def refresh(self) -> None:
        """Take over the current state of the atoms; call it after changing them other than by moves."""
        self.context.clear()
        self._check_moves()
        self.energy = check_finite(self.energies.fresh())
        self.context.clear()  # indices are built when first used, as in a run without changes

    def save(self, path: str | Path | None = None) -> None:
        """Write the state file.

        Raises:
            ValueError: if neither a path is given nor `restart` was.
            InUseError: if the file of `restart` is to be written and another simulation uses it.
        """
        save(self.state_file, path, self.get_state, type(self).__name__)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the state file, if there is one, within the context."""
        return nullcontext() if self.state_file is None else self.state_file.locked()

    def get_state(self) -> tuple[Arrays, dict[str, Any]]:
        """Complete state of a run for its continuation: arrays, and other values as JSON.

        Values that depend on the history (last bits of a running energy, the order in lists) are recomputed, so that a
        continued and a restarted run are identical.
        """
        self.check_energy()
        self.context.clear()
        arrays = atoms_to_arrays(self.atoms)
        if self.context.count_varies:
            fixed = [c.index for c in self.atoms.constraints if isinstance(c, FixAtoms)]
            arrays["fixed"] = np.concatenate([np.zeros(0, np.int64), *fixed])
        return arrays, {
            "settings": self._settings,
            "temperature_K": self.temperature_K,
            "nsteps": self.nsteps,
            "energy": self.energy,
            "rng": self.context.rng.bit_generator.state,
            "seed": self.seed,
            "records": [asdict(record) for record in self._records],
            "windows": self._windows,
            "blocking": self._blocking.state(),
            "steps": self._steps(),
        }

    def set_state(self, arrays: Arrays, state: dict[str, Any], source: str = "the state") -> None:
        """Restore a state from `get_state`.

        Raises:
            ValueError: if it belongs to other atoms or settings; nothing is changed then.
            EnergyMismatchError: if it belongs to another calculator; nothing is changed then.
        """
        self.check_state(arrays, state, source)
        with self.restored_on_error():
            self._take(arrays, state["energy"], source)
            self.context.temperature_K = state["temperature_K"]
            self.context.rng.bit_generator.state = state["rng"]
            self.nsteps, self.seed = state["nsteps"], state["seed"]
            self._records = [MoveRecord(**record) for record in state["records"]]
            self._windows, self._blocking = state["windows"], Blocking(**state["blocking"])
            self._set_steps(state["steps"])
            self.end()

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Context that restores the simulation after an error."""
        atoms, steps, temperature_K = self.atoms.copy(), self._steps(), self.temperature_K
        rng = self.context.rng.bit_generator.state
        names = ("energy", "nsteps", "seed", "_last_fingerprint", "_records", "_windows", "_blocking")
        rest = {name: value for name, value in vars(self).items() if name in names}
        try:
            yield
        except BaseException:
            arrays_to_atoms(atoms_to_arrays(atoms), self.atoms)
            self.atoms.set_constraint(atoms.constraints)
            vars(self).update(rest)
            self._set_steps(steps)
            self.context.temperature_K, self.context.rng.bit_generator.state = temperature_K, rng
            self.context.clear()
            self.energies.stale = True
            raise

    def _steps(self) -> list[float | None]:
        return [getattr(move, "step", None) for move in self.moves]

    def _set_steps(self, steps: Sequence[float | None]) -> None:
        for move, step in zip(self.moves, steps, strict=True):
            if isinstance(move, Adaptive) and step is not None:
                move.step = step

    def check_state(self, arrays: Arrays, state: dict[str, Any], source: str = "the state") -> None:
        """Raise ValueError for a state of other atoms or settings."""
        check_same(source, state["settings"], self._settings)
        changes = {change for move in self.moves for change in move.changes}
        if self.context.composition_varies:
            changes.add("composition")
        check_atoms_fit(source, arrays, self.atoms, changes)

    def _take(self, arrays: Arrays, energy: float, source: str) -> None:
        arrays_to_atoms(arrays, self.atoms)
        if "fixed" in arrays and (len(arrays["fixed"]) or self.atoms.constraints):
            self.atoms.set_constraint(FixAtoms(arrays["fixed"]))
        self.context.clear()
        self._check_moves()
        self.energy = energy
        try:
            self.check_energy()
        except EnergyMismatchError as error:
            raise EnergyMismatchError(
                f"{source} was written with another calculator, another model or other settings of it: {error}"
            ) from error
        self.energy = energy
        self.context.clear()  # indices are built when first used, as in a run without interruption

    def _check_moves(self) -> None:
        plain = [getattr(move, "move", move) for move in self.moves]
        indices = [type(move).__name__ for move in plain if getattr(move, "indices", None) is not None]
        if indices and self.context.count_varies:
            raise ValueError(
                f"{', '.join(indices)} has indices, but Exchange changes the numbering of atoms. Leave indices out, or "
                "hold atoms with FixAtoms."
            )
        for move in self.moves:
            move.check(self.context)
            if isinstance(move, Sublattice) and not isinstance(self.energies, LocalEnergies):
                raise ValueError("Sublattice works with the calculator's local energies only; leave out local=False.")
