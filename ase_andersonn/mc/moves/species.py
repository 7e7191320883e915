"""Moves of species: swaps of two atoms, and transmutations of one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ase_andersonn.mc.context import Context
from ase_andersonn.mc.criteria import semi_grand

from .base import TRANSMUTED, Move, Trial, as_indices, check_indices, number_of


@dataclass(eq=False)
class SpeciesSwap(Move):
    """Swap of two atoms of different species; a = min(1, exp(-dE / kT)).

    The pair of species is drawn first, uniformly among the pairs present, then one atom of each. Atomic numbers (and
    masses, if set) are swapped, so sites keep their order and magnetic moments. Constraints of positions have no effect
    on this move.

    Args:
        symbols: species to swap; None for all.
        indices: atoms that may be swapped; None for all.

    Raises:
        ValueError: for fewer than two species, or invalid indices.
    """

    symbols: Sequence[str] | None = None
    indices: Any = None

    changes: ClassVar[frozenset[str]] = frozenset({"numbers"})

    def __post_init__(self) -> None:
        self.indices = as_indices(self.indices)
        self._numbers = None if self.symbols is None else frozenset(number_of(symbol) for symbol in self.symbols)
        if self._numbers is not None and len(self._numbers) < 2:
            raise ValueError(f"symbols is {list(self.symbols or [])}; a swap needs at least two species.")

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        check_indices(self.indices, len(context.atoms))
        if len(self._present(context)) < 2 and not context.composition_varies:
            among = "" if self.indices is None and self.symbols is None else " and those chosen"
            raise ValueError(
                f"SpeciesSwap needs atoms of two species, and the structure is {context.atoms.symbols or 'empty'}: "
                f"with one species{among} no swap changes anything. Use an alloy, or another move."
            )

    def propose(self, context: Context) -> Trial | None:
        """See `Move.propose`."""
        present = self._present(context)
        if len(present) < 2:
            return None
        a = context.pick(len(present))
        b = context.pick(len(present) - 1)
        b += b >= a
        members = context.by_species(self.indices).members
        first, second = members[present[a]], members[present[b]]
        changed = np.array([first[context.pick(len(first))], second[context.pick(len(second))]])
        self._exchange(context.atoms, changed)
        return Trial(changed, 0.0, None)

    def undo(self, context: Context, trial: Trial) -> None:
        """See `Move.undo`."""
        self._exchange(context.atoms, trial.changed)

    def commit(self, context: Context, trial: Trial) -> None:
        """See `Move.commit`."""
        i, j = trial.changed.tolist()
        numbers = context.atoms.arrays["numbers"]
        new_i, new_j = int(numbers[i]), int(numbers[j])
        context.relabel(i, new_j, new_i)
        context.relabel(j, new_i, new_j)

    def _present(self, context: Context) -> list[int]:
        members = context.by_species(self.indices).members
        return [n for n, atoms in sorted(members.items()) if atoms and (self._numbers is None or n in self._numbers)]

    @staticmethod
    def _exchange(atoms: Atoms, pair: NDArray[np.int64]) -> None:
        for name in ("numbers", "masses"):
            if name in atoms.arrays:
                values = atoms.arrays[name]
                values[pair] = values[pair[::-1]]


@dataclass(eq=False)
class Transmutation(Move):
    """Change of an atom's species, semi-grand canonical; a = min(1, exp(-(dE - mu_new + mu_old) / kT)).

    The number of atoms is constant; the weight of a structure is exp(-(E - sum_s mu_s N_s) / kT), so only differences
    of the mu_s matter. They are configurational: the kinetic part 3/2 kT ln(m_new / m_old) is not included. Kofke and
    Glandt, Mol. Phys. 64, 1105 (1988).

    Args:
        chemical_potentials: mu of each species, eV; atoms of other species are not changed.
        indices: atoms that may change; None for all.

    Raises:
        ValueError: for fewer than two species, potentials that are not finite, or invalid indices.
    """

    chemical_potentials: Mapping[str, float]
    indices: Any = None

    changes: ClassVar[frozenset[str]] = frozenset({"numbers"})
    varies_composition: ClassVar[bool] = True
    array: ClassVar[str] = "numbers"

    def __post_init__(self) -> None:
        self.indices = as_indices(self.indices)
        potentials = self.chemical_potentials
        if not isinstance(potentials, Mapping) or len(potentials) < 2:
            raise ValueError(
                f"chemical_potentials is {potentials!r}; at least two species are needed, as in "
                "{'Cu': 0.0, 'Ni': 0.1}."
            )
        if wrong := {s: mu for s, mu in potentials.items() if not math.isfinite(mu)}:
            raise ValueError(f"chemical potentials have to be finite, in eV; given were {wrong}.")
        self._species = [number_of(symbol) for symbol in potentials]
        self._mu = np.array([float(mu) for mu in potentials.values()])
        self._slot = np.full(256, -1)  # of a species, by atomic number
        self._slot[self._species] = np.arange(len(self._species))

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        check_indices(self.indices, len(context.atoms))
        if "masses" in context.atoms.arrays:
            raise ValueError(
                "the atoms have masses of their own, which a change of species would not update. "
                "Delete them: del atoms.arrays['masses']."
            )
        if not sum(self._available(context)) and not context.count_varies:
            raise ValueError(
                f"Transmutation turns {', '.join(self.chemical_potentials)} into each other, and the structure "
                f"{context.atoms.symbols or 'without atoms'} has none that may change. Give the potentials of the "
                "species that are there, or other indices."
            )

    def propose(self, context: Context) -> Trial | None:
        """See `Move.propose`."""
        available = self._available(context)
        total = sum(available)
        if not total:
            return None
        chosen, old = context.pick(total), 0
        while chosen >= available[old]:
            chosen -= available[old]
            old += 1
        new = context.pick(len(available) - 1)
        new += new >= old
        atom = context.by_species(self.indices).members[self._species[old]][chosen]
        context.atoms.arrays["numbers"][atom] = self._species[new]
        ratio = semi_grand(float(self._mu[new] - self._mu[old]), context.kT)
        return Trial(np.array([atom]), ratio, self._species[old])

    def undo(self, context: Context, trial: Trial) -> None:
        """See `Move.undo`."""
        context.atoms.arrays["numbers"][trial.changed] = trial.saved

    def commit(self, context: Context, trial: Trial) -> None:
        """See `Move.commit`."""
        atom = int(trial.changed[0])
        context.relabel(atom, trial.saved, int(context.atoms.arrays["numbers"][atom]))

    def fields(self) -> dict[str, float]:
        """See `Move.fields`."""
        return {TRANSMUTED + symbol: float(mu) for symbol, mu in self.chemical_potentials.items()}

    def log_weight(self, atoms: Atoms, temperature_K: float) -> dict[str, float]:
        """See `Move.log_weight`."""
        counts = np.bincount(atoms.numbers, minlength=256)[self._species].tolist()
        potentials = self.fields().items()
        kT = units.kB * temperature_K
        return {name: mu * n / kT for (name, mu), n in zip(potentials, counts, strict=True)}

    def is_allowed(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each atomic number may be changed; see `sublattice.SiteMove`."""
        allowed: NDArray[np.bool_] = self._slot[values] >= 0
        return allowed

    def sample(self, values: NDArray[Any], context: Context) -> tuple[NDArray[Any], NDArray[np.float64] | float]:
        """Atomic numbers uniform among the other species, and log ratios; see `sublattice.SiteMove`."""
        old = self._slot[values]
        n = len(self._species)
        new = (old + 1 + (context.rng.integers(n - 1, size=len(old)) if n > 2 else 0)) % n
        return np.take(self._species, new), (self._mu[new] - self._mu[old]) / context.kT

    def _available(self, context: Context) -> list[int]:
        members = context.by_species(self.indices).members
        return [len(members.get(number, ())) for number in self._species]
