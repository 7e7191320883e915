"""Checkerboard updates: simultaneous moves of atoms that do not interact."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .context import Context
from .criteria import accepted_each
from .local_energy import Energies, ManyLocalEnergies
from .moves.base import Move, Trial, as_indices
from .statistics import MoveRecord

Ints = NDArray[np.int64]


class SiteMove(Protocol):
    """Protocol of moves that `Sublattice` can make on many atoms at once, in addition to `Move`.

    Attributes:
        array: name of the atoms' array that it changes, "numbers" or "initial_magmoms".
    """

    array: str
    indices: Any

    def is_allowed(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each value may be changed, [n]; moves must not change this."""
        ...

    def sample(self, values: NDArray[Any], context: Context) -> tuple[NDArray[Any], NDArray[np.float64] | float]:
        """Random new values, [n], and the contributions r of ensemble and proposal (`criteria`)."""
        ...


class Sublattice(Move):
    """Simultaneous single-atom moves (`SpinFlip` or `Transmutation`) on a random subset of one colour.

        a_i = min(1, exp(-dE_i / kT + r_i)) for each atom i of the subset

    Atoms of one colour do not interact, so dE_i does not depend on the other moves, and simultaneous moves are
    equivalent to sequential ones. Colour and subset are drawn independently of the state, so each attempt satisfies
    detailed balance. The calculator gives the energy changes, see `local_energy.ManyLocalEnergies`. Colours are updated
    after positions have changed.

    Args:
        move: the move of one atom.
        fraction: share of the atoms of a colour that is proposed at once. A fraction of 1 is not ergodic if all moves
            are accepted (no field, high temperature): all atoms of a colour then flip together every time.
        sets: the colours, arrays of atom indices with each atom in exactly one; None for those of the calculator.

    Raises:
        ValueError: for another move, or a fraction outside (0, 1].
    """

    def __init__(self, move: Any, fraction: float = 0.5, sets: Sequence[Any] | None = None) -> None:
        if not (isinstance(move, Move) and hasattr(move, "sample") and hasattr(move, "is_allowed")):
            raise ValueError(f"Sublattice needs a single-atom move, SpinFlip or Transmutation; {move!r} was given.")
        if not 0.0 < fraction <= 1.0:
            raise ValueError(
                f"fraction is {fraction}; it is the share of a colour that is proposed at once, in (0, 1]."
            )
        self.move: Any = move
        self.fraction, self.sets = fraction, sets
        self._colors: tuple[int, list[Ints]] | None = None

    @property
    def changes(self) -> frozenset[str]:  # type: ignore[override]
        """See `Move.changes`."""
        found: frozenset[str] = self.move.changes
        return found

    @property
    def varies_composition(self) -> bool:  # type: ignore[override]
        """See `Move.varies_composition`."""
        return bool(self.move.varies_composition)

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        self.move.check(context)
        calc = context.atoms.calc
        if not isinstance(calc, ManyLocalEnergies):
            raise ValueError(
                "Sublattice needs a calculator that gives the energy changes of many moves at once "
                "(trial_energy_changes, commit_each, independent_sets); "
                f"{type(calc).__name__} does not. Use {type(self.move).__name__} alone."
            )
        self._color(context)

    def attempt(self, context: Context, energies: Energies, energy: float, record: MoveRecord) -> float:
        """See `Move.attempt`; each atom proposed counts as one move."""
        atoms, rng, calc = context.atoms, context.rng, context.atoms.calc
        colors = self._color(context)
        sites = colors[context.pick(len(colors))]
        if self.fraction < 1.0:
            sites = sites[rng.random(len(sites), dtype=np.float32) < self.fraction]
        values = atoms.arrays[self.move.array]
        old = values[sites]
        allowed = self.move.is_allowed(old)
        if not allowed.all():
            sites, old = sites[allowed], old[allowed]
        if not len(sites):
            return energy
        record.attempted += len(sites)
        new, log_ratio = self.move.sample(old, context)
        values[sites] = new
        try:
            changes = np.asarray(calc.trial_energy_changes(atoms, sites), np.float64)
            if changes.shape != sites.shape:
                raise ValueError(
                    f"trial_energy_changes gave the shape {changes.shape} for {len(sites)} moves; [n] is needed."
                )
        except BaseException:
            values[sites] = old
            energies.stale = True
            raise
        kept = accepted_each(log_ratio, changes, context.kT, rng)
        refused = ~kept
        values[sites[refused]] = old[refused]
        if self.move.array == "numbers":
            context.relabel_many()
        calc.commit_each(kept)
        record.accepted += int(np.count_nonzero(kept))
        record.nonfinite += int(np.count_nonzero(~np.isfinite(changes)))
        return energy + float(changes[kept].sum())

    def propose(self, context: Context) -> Trial | None:
        """Not a move that can be proposed alone; see `attempt`."""
        raise NotImplementedError

    def undo(self, context: Context, trial: Trial) -> None:
        """See `propose`."""
        raise NotImplementedError

    def fields(self) -> dict[str, float]:
        """See `Move.fields`."""
        found: dict[str, float] = self.move.fields()
        return found

    def log_weight(self, atoms: Atoms, temperature_K: float) -> dict[str, float]:
        """See `Move.log_weight`."""
        found: dict[str, float] = self.move.log_weight(atoms, temperature_K)
        return found

    def settings(self) -> dict[str, Any]:
        """See `Move.settings`."""
        sets = None if self.sets is None else [np.asarray(one).tolist() for one in self.sets]
        return {"move": "Sublattice", "of": self.move.settings(), "fraction": self.fraction, "sets": sets}

    def _color(self, context: Context) -> list[Ints]:
        if self._colors is None or self._colors[0] != context.geometry:
            sets = context.atoms.calc.independent_sets(context.atoms) if self.sets is None else self.sets
            colors = [np.asarray(one, np.int64) for one in sets]
            _check_partition(colors, len(context.atoms))
            chosen = as_indices(self.move.indices)
            if chosen is not None:
                colors = [one[np.isin(one, chosen)] for one in colors]
            self._colors = (context.geometry, [one for one in colors if len(one)])
        return self._colors[1]


def _check_partition(colors: list[Ints], n_atoms: int) -> None:
    together = np.concatenate([np.zeros(0, np.int64), *colors])
    inside = (together >= 0) & (together < n_atoms)
    if len(together) != n_atoms or not inside.all() or len(np.unique(together)) != n_atoms:
        raise ValueError(
            f"the {len(colors)} independent sets have {len(together)} indices, {len(np.unique(together[inside]))} of "
            f"the {n_atoms} atoms; together they have to contain each atom exactly once."
        )
