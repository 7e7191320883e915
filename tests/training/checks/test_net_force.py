"""Forces that held atoms do not have, and such that do not sum to zero, are doubted before training."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from copper_frames import copper

from ase_andersonn.training.checks.net_force import check_net_forces
from ase_andersonn.training.config import LabelKeys

KEYS = LabelKeys()


def slabs(*, apply_constraint: bool) -> list[Atoms]:
    """Rattled slabs of copper whose lower half is held."""
    rng, frames = np.random.default_rng(2), []
    for _ in range(5):
        atoms = fcc111("Cu", (2, 2, 4), vacuum=6.0)
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.set_constraint(FixAtoms(range(8)))
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(apply_constraint)}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("apply_constraint", [False, True])
def test_forces_of_held_atoms_are_doubted_where_they_are_zero(*, apply_constraint: bool) -> None:
    found = check_net_forces(slabs(apply_constraint=apply_constraint), KEYS, "validation ")
    text = "50 % of the atoms of validation frames that are not relaxed have forces of exactly zero"
    assert (text in "".join(found)) == apply_constraint
    assert bool(found) == apply_constraint


def test_net_forces_are_told_of() -> None:
    frames = copper(10)
    found = check_net_forces(frames, KEYS)
    assert not found
    for atoms in frames:
        atoms.calc.results["forces"] += [0.3, 0.0, 0.0]
    found = check_net_forces(frames, KEYS)
    assert "forces of the frames do not sum to zero: of 2.37 eV/Å (root mean square) 0.173 remains" in "".join(found)


def test_forces_that_symmetry_makes_zero_are_not_doubted() -> None:
    atoms = molecule("CO2")
    forces = np.zeros((3, 3))
    forces[1:, 2] = 1e-3, -1e-3  # close to rest
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    found = check_net_forces([atoms, molecule("CO2")], KEYS)
    assert not found
