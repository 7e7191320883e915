"""Energies of trial structures: the optional calculator protocol for cheap local moves, and full evaluations.

A calculator with the methods of `LocalEnergy` gets the list of changed atoms with a trial structure, so that the cost
of a move is local; one that also has those of `ManyLocalEnergies` evaluates many moves at once. Any other ASE
calculator evaluates each trial structure in full.
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
    """Protocol: energies of trial structures that differ in a few atoms from a committed one.

    The calculator stores the committed state. The driver calls `trial_energy` and then always `commit`, unless
    `trial_energy` raises, which must leave the committed state unchanged. If `changed` lists all atoms, the energy must
    not depend on earlier evaluations: cell and number of atoms may have changed too, and there may be no committed
    state yet. Before such a call to check its running energy or to write a state file, the driver calls ASE's `reset()`
    if the calculator has it.
    """

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """Energy of a trial structure, eV.

        Args:
            atoms: the structure; it differs from the committed one only in the atoms `changed` (positions, numbers,
                initial magnetic moments). It must not be modified or stored, as the driver changes it in place.
            changed: int64 [n_changed], their indices, each once.
        """
        ...

    def commit(self, accepted: bool) -> None:
        """Accept the trial state as the committed one, or reject it without further evaluation."""
        ...


@runtime_checkable
class ManyLocalEnergies(LocalEnergy, Protocol):
    """Protocol: energy changes of many non-interacting single-atom moves at once."""

    def independent_sets(self, atoms: Atoms) -> list[NDArray[np.int64]]:
        """Partition of the atoms into sets without interactions within a set (a graph colouring).

        Sets must depend on positions, cell and boundary conditions only: a dependence on the numbers and magnetic
        moments, which moves change, would break detailed balance.
        """
        ...

    def trial_energy_changes(self, atoms: Atoms, changed: NDArray[np.int64]) -> NDArray[np.float64]:
        """Energy change of each move made alone, [n_changed], eV.

        Args:
            atoms: the structure with all moves made; it differs from the committed one only in numbers and initial
                magnetic moments of `changed`. It must not be modified or stored.
            changed: int64 [n_changed], atoms of one of the `independent_sets`, each once.
        """
        ...

    def commit_each(self, accepted: NDArray[np.bool_]) -> None:
        """Commit the moves that are True in `accepted`, [n_changed], and reject the others without evaluation."""
        ...


class FullEnergies:
    """Energies from full evaluations, `atoms.get_potential_energy()`."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.stale = False  # whether the running energy may belong to other atoms

    def trial_energy(self, changed: Ints) -> float:  # noqa: ARG002 (full evaluation)
        """Energy of the atoms, eV; zero without atoms."""
        return float(self.atoms.get_potential_energy()) if len(self.atoms) else 0.0

    def commit(self, accepted: bool) -> None:
        """Nothing to do, as no state is stored."""

    def fresh(self) -> float:
        """Energy of the atoms, eV, independent of earlier evaluations of the calculator."""
        _forget(self.atoms.calc)
        energy = self.trial_energy(np.arange(len(self.atoms)))
        self.stale = False
        return energy


class LocalEnergies:
    """Energies from a calculator that has the methods of `LocalEnergy`."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.stale = False  # whether the committed state of the calculator is unknown
        self._pending = False

    def trial_energy(self, changed: Ints) -> float:
        """Energy of the atoms, eV, which differ from the committed state in `changed`."""
        if len(self.atoms) == 0:
            return 0.0
        try:
            energy = float(self.atoms.calc.trial_energy(self.atoms, changed))
        except BaseException:
            self.stale = True
            raise
        self._pending = True
        return energy

    def commit(self, accepted: bool) -> None:
        """Accept or reject the trial state, if there is one."""
        if self._pending:
            self._pending = False
            self.atoms.calc.commit(accepted)

    def fresh(self) -> float:
        """Energy of the atoms, eV, independent of earlier evaluations; they become the committed state."""
        _forget(self.atoms.calc)
        energy = self.trial_energy(np.arange(len(self.atoms)))
        self.commit(True)
        self.stale = False
        return energy


Energies = FullEnergies | LocalEnergies


def energies_of(atoms: Atoms, local: bool) -> Energies:
    """Local energies if the calculator has them, full evaluations otherwise.

    Args:
        atoms: the structure with its calculator.
        local: whether to use the methods of `LocalEnergy` if the calculator has them.

    Raises:
        ValueError: if there is no calculator.
    """
    if atoms.calc is None:
        raise ValueError("the atoms have no calculator; set atoms.calc to any ASE calculator first.")
    renamed_methods(atoms.calc, CALCULATOR_METHODS)
    return LocalEnergies(atoms) if local and isinstance(atoms.calc, LocalEnergy) else FullEnergies(atoms)


def check_finite(energy: float) -> float:
    """Return the energy of a starting structure if it is finite.

    Raises:
        ValueError: if it is not finite.
    """
    if not math.isfinite(energy):
        raise ValueError(
            f"the energy of the starting structure is {energy} eV; Monte Carlo needs a finite one. "
            "Check the structure for atoms too close to each other."
        )
    return energy


def _forget(calc: Any) -> None:
    reset = getattr(calc, "reset", None)
    if callable(reset):
        reset()
