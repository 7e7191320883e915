"""Potentials in LAMMPS by `fix external`: dynamics, minimisation, and whatever else LAMMPS does, on one MPI process.

lmp = lammps()
lmp.file("in.copper")                        # units metal, atom_style atomic, atom_modify map array, no pair_style
potential = FixAndersoNN(lmp, ["Cu"])
lmp.command("run 1000")
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_andersonn.calculator import AndersoNN

UPPER = np.array([0, 1, 2, 5, 4, 3])
"""Of ASE's order xx, yy, zz, yz, xz, xy in LAMMPS' xx, yy, zz, xy, xz, yz."""


class FixAndersoNN:
    """A fix of LAMMPS that adds energy, forces and virial of an AndersoNN calculator.

    Args:
        lmp: LAMMPS, with its box and atoms, `units metal`.
        elements: chemical symbol of each LAMMPS type, in their order.
        model: as of `AndersoNN`.
        name: of the fix.
        options: other arguments of `AndersoNN`.

    The pressure of a box that is not periodic in three directions is nan.

    Attributes:
        calculator: the calculator; its `diagnostics` are those of the last step.
        error: what a step raised, after which the run ends with energies that are nan; else None.

    Raises:
        ValueError: for other units, several MPI processes, and elements that do not fit the types.
    """

    def __init__(
        self, lmp: Any, elements: Sequence[str], model: Any = None, *, name: str = "andersonn", **options: Any
    ) -> None:
        if lmp.extract_global("units") != "metal":
            raise ValueError(f"LAMMPS' units are {lmp.extract_global('units')!r}; they have to be 'metal': eV, Å, ps.")
        if lmp.extract_setting("world_size") != 1:
            raise ValueError("fix external sees the atoms of its own MPI process alone; run LAMMPS on one.")
        if len(elements) != lmp.extract_setting("ntypes"):
            raise ValueError(f"elements has {len(elements)} entries; LAMMPS has {lmp.extract_setting('ntypes')} types.")
        unknown = [symbol for symbol in elements if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f"elements holds {', '.join(unknown)}, which are no chemical symbols.")
        self.calculator = AndersoNN(model, **options)
        self.error: Exception | None = None
        self._lmp, self._name = lmp, name
        self._numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
        lmp.command(f"fix {name} all external pf/callback 1 1")
        lmp.command(f"fix_modify {name} energy yes virial yes")
        lmp.set_fix_external_callback(name, self._step, None)

    def structure(self, positions: NDArray[np.float64] | None = None) -> Atoms:
        """LAMMPS' atoms in its own order, in a cell whose origin is at zero."""
        low, high, xy, yz, xz, periodic, _ = self._lmp.extract_box()
        x, y, z = np.subtract(high, low)
        n = self._lmp.extract_setting("nlocal")
        if positions is None:
            positions = self._lmp.numpy.extract_atom("x")[:n]
        numbers = self._numbers[self._lmp.numpy.extract_atom("type")[:n]]
        cell = [[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]
        return Atoms(numbers, positions - np.array(low), cell=cell, pbc=np.array(periodic, dtype=bool))

    def _step(self, _: Any, step: int, n: int, __: Any, positions: NDArray[Any], forces: NDArray[Any]) -> None:
        """Fill the forces of a step. An exception would not pass through LAMMPS, so it is kept, and the run ended."""
        energy, virial = np.nan, np.full(6, np.nan)
        forces[:n] = np.nan
        try:
            atoms = self.structure(positions[:n])
            forces[:n] = self.calculator.get_property("forces", atoms)
            energy = self.calculator.get_property("energy", atoms)
            if atoms.pbc.all():
                virial = -self.calculator.get_property("stress", atoms)[UPPER] * atoms.get_volume()
        except Exception as error:
            self.error = error
            print(f"fix {self._name}, step {step}: {error}", flush=True)  # noqa: T201 (the only way out of a callback)
            self._lmp.command("timer timeout 0 every 1")
        self._lmp.fix_external_set_energy_global(self._name, energy)
        self._lmp.fix_external_set_virial_global(self._name, virial)
