"""Exchange of atoms with a reservoir."""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import atomic_masses

from ase_andersonn.mc.context import Context
from ase_andersonn.mc.criteria import deletion, insertion, log_activity

from .base import EXCHANGED, Ints, Move, Trial, number_of


@dataclass(eq=False)
class Exchange(Move):
    """Insertion or, with equal probability, deletion of an atom; grand canonical.

        insertion: a = min(1, z V / (N + 1) exp(-dE / kT)),    deletion: a = min(1, N / (z V) exp(-dE / kT)),
        z = exp(mu / kT) / wavelength^3,    wavelength = h / sqrt(2 pi m kT)

    N is the number of atoms of the species that are not fixed by FixAtoms. The energy without atoms is zero. An
    inserted atom is appended, with zero magnetic moment, tag and momentum. Frenkel and Smit (2002), section 5.6.

    Args:
        symbol: species.
        chemical_potential: mu, eV, relative to the energies of the calculator (including that of an isolated atom),
            with the ideal-gas term kT ln(density wavelength^3).
        mass: m, u; None for the element's.

    Raises:
        ValueError: for an unknown symbol, or invalid numbers.
    """

    symbol: str
    chemical_potential: float
    mass: float | None = None

    changes: ClassVar[frozenset[str]] = frozenset({"positions", "numbers", "magmoms", "count"})
    varies_composition: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._number = number_of(self.symbol)
        self._mass = float(atomic_masses[self._number]) if self.mass is None else self.mass
        if not math.isfinite(self.chemical_potential):
            raise ValueError(f"the chemical potential is {self.chemical_potential}; it has to be finite, in eV.")
        if not (math.isfinite(self._mass) and self._mass > 0.0):
            raise ValueError(f"the mass of {self.symbol} is {self._mass}; it has to be positive, in u.")

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        atoms = context.atoms
        if not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise ValueError(
                f"Exchange needs a cell that is periodic in three directions; pbc is {atoms.pbc.tolist()} "
                f"and the cell {atoms.cell.array.tolist()} Å. Set both (a slab: with vacuum)."
            )
        if others := [type(c).__name__ for c in atoms.constraints if not isinstance(c, FixAtoms)]:
            raise ValueError(
                f"Exchange changes the numbering of atoms, which {', '.join(others)} cannot follow; use FixAtoms."
            )
        for name in ("initial_magmoms", "initial_charges"):
            if name in atoms.arrays and atoms.arrays[name][self._members(context)].any():
                raise ValueError(
                    f"atoms of {self.symbol} have {name.replace('_', ' ')}, but Exchange inserts atoms without: an "
                    "atom deleted could not be inserted again. Set them to zero."
                )

    def propose(self, context: Context) -> Trial | None:
        """See `Move.propose`."""
        atoms, rng = context.atoms, context.rng
        there = self._members(context)
        inserts = rng.random() < 0.5
        if not inserts and not len(there):
            return None
        saved = (dict(atoms.arrays), copy.deepcopy(atoms.constraints))
        activity = log_activity(self.chemical_potential, self._mass, context.temperature_K)
        if inserts:
            ratio = insertion(activity, atoms.get_volume(), len(there))
            position = rng.random(3) @ atoms.cell.array
            atoms.extend(Atoms([self._number], positions=[position], masses=self._own_mass(atoms)))
        else:
            ratio = deletion(activity, atoms.get_volume(), len(there))
            del atoms[[int(there[context.pick(len(there))])]]
        return Trial(np.arange(len(atoms)), ratio, saved)

    def undo(self, context: Context, trial: Trial) -> None:
        """See `Move.undo`."""
        arrays, constraints = trial.saved
        context.atoms.arrays.clear()
        context.atoms.arrays.update(arrays)
        context.atoms.set_constraint(constraints)

    def fields(self) -> dict[str, float]:
        """See `Move.fields`."""
        return {EXCHANGED + self.symbol: self.chemical_potential}

    def log_weight(self, atoms: Atoms, temperature_K: float) -> dict[str, float]:
        """See `Move.log_weight`."""
        n = int((atoms.numbers == self._number).sum())
        return {EXCHANGED + self.symbol: n * log_activity(self.chemical_potential, self._mass, temperature_K)}

    def _members(self, context: Context) -> Ints:
        """Atoms that may be deleted; the search costs no more than an insertion."""
        of_species = context.atoms.numbers == self._number
        if context.frozen is not None:
            of_species &= ~context.frozen.any(1)
        return np.flatnonzero(of_species)

    def _own_mass(self, atoms: Atoms) -> list[float] | None:
        return [self._mass] if "masses" in atoms.arrays else None
