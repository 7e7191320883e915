"""Energies of trial structures: what a calculator may offer to make a move cheap, and what is done without it.

A calculator that has the methods of `LocalEnergy` is asked for the energy of a trial structure with the list of atoms
that differ, so that a move costs what these atoms cost; one that also has those of `ManyLocalEnergies` is asked for
many moves at once. Every other ASE calculator evaluates each trial structure in full.
"""

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_andersonn.deprecated import CALCULATOR_METHODS, renamed_methods

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@runtime_checkable
class LocalEnergy(Protocol):
    """Energies of structures that differ in a few atoms from a settled one, which the calculator remembers.

    The driver calls `trial_energy` and then, always, `commit`, unless `trial_energy` raised: then the settled state has
    to be as it was before. Where `changed` lists all atoms, nothing may be taken from the settled state: the cell and
    the number of atoms may have changed too, there may be no settled state yet, and the energy may not depend on what
    was evaluated before. Before it does this to check its running energy or to write a state file, the driver calls
    ASE's `reset()` where the calculator has it.
    """

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """Energy of a trial structure, eV.

        Args:
            atoms: the structure; it differs from the settled one only in the atoms `changed` (positions, numbers,
                initial magnetic moments). Not to be written to, nor to be kept: it is changed in place.
            touched: int64 [n_touched], their indices, each once.
        """
        ...

    def commit(self, accepted: bool) -> None:
        """Make the proposed state the settled one, or go back to the settled state at no cost."""
        ...


@runtime_checkable
class ManyLocalEnergies(LocalEnergy, Protocol):
    """Energy changes of many single-atom moves at once, none of which feels another."""

    def independent_sets(self, atoms: Atoms) -> list[NDArray[np.int64]]:
        """Sets of atoms that do not interact within one set; together they hold each atom once (a colouring).

        What is changed are numbers and magnetic moments, so the sets may depend on positions, cell and boundary
        conditions only: sets that depend on what is changed would break detailed balance.
        """
        ...

    def trial_energy_changes(self, atoms: Atoms, changed: NDArray[np.int64]) -> NDArray[np.float64]:
        """The energy change of each of many moves, [n_touched], eV, as if it alone were made.

        Args:
            atoms: the structure with all of the moves made; it differs from the settled one only in numbers and
                initial magnetic moments of `changed`. Not to be written to, nor to be kept.
            touched: int64 [n_touched], atoms of one of the `independent_sets`, each once.
        """
        ...

    def commit_each(self, accepted: NDArray[np.bool_]) -> None:
        """Settle the proposed moves that are True in `accepted`, [n_touched]; the others go back at no cost."""
        ...


class FullEnergies:
    """Each energy a full evaluation, `atoms.get_potential_energy()`."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.stale = False  # whether the running energy may be that of other atoms

    def trial_energy(self, changed: Ints) -> float:  # noqa: ARG002 (all is evaluated)
        """Energy of the atoms as they are, eV; that of no atoms is zero."""
        return float(self.atoms.get_potential_energy()) if len(self.atoms) else 0.0

    def commit(self, accepted: bool) -> None:
        """Nothing is kept."""

    def fresh(self) -> float:
        """Energy of the atoms that does not depend on what the calculator did before, eV."""
        _forget(self.atoms.calc)
        energy = self.trial_energy(np.arange(len(self.atoms)))
        self.stale = False
        return energy


class LocalEnergies:
    """Energies from a calculator that has the methods of `LocalEnergy`."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.stale = False  # whether what the calculator holds as settled is unknown
        self._waiting = False

    def trial_energy(self, changed: Ints) -> float:
        """Energy of the atoms, which differ from the settled state in those `changed`, eV."""
        if len(self.atoms) == 0:
            return 0.0
        try:
            energy = float(self.atoms.calc.trial_energy(self.atoms, changed))
        except BaseException:
            self.stale = True
            raise
        self._waiting = True
        return energy

    def commit(self, accepted: bool) -> None:
        """Tell the calculator what became of the proposed state, where it was asked for one."""
        if self._waiting:
            self._waiting = False
            self.atoms.calc.commit(accepted)

    def fresh(self) -> float:
        """Energy of the atoms that does not depend on what the calculator did before; they are settled, eV."""
        _forget(self.atoms.calc)
        energy = self.trial_energy(np.arange(len(self.atoms)))
        self.commit(True)
        self.stale = False
        return energy


Energies = FullEnergies | LocalEnergies


def energies_of(atoms: Atoms, local: bool) -> Energies:
    """How the energies of trial structures are found.

    Args:
        atoms: the structure with its calculator.
        local: whether to use the calculator's `LocalEnergy` where it has it.

    Raises:
        ValueError: if there is no calculator.
    """
    if atoms.calc is None:
        raise ValueError("the atoms have no calculator; set atoms.calc to any ASE calculator first.")
    renamed_methods(atoms.calc, CALCULATOR_METHODS)
    return LocalEnergies(atoms) if local and isinstance(atoms.calc, LocalEnergy) else FullEnergies(atoms)


def check_finite(energy: float) -> float:
    """The energy of a structure to start from.

    Raises:
        ValueError: if it is not finite.
    """
    if not math.isfinite(energy):
        raise ValueError(
            f"the energy of the starting structure is {energy} eV; Monte Carlo needs a finite one to start from. "
            "Are there atoms too close to each other?"
        )
    return energy


def _forget(calc: Any) -> None:
    reset = getattr(calc, "reset", None)
    if callable(reset):
        reset()
