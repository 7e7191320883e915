"""Stresses of another sign or unit are doubted before training, right ones are not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from ase_andersonn.training.checks.energy_stress import MIN_PAIRS, check_energy_stress
from ase_andersonn.training.config import LabelKeys

KEYS = LabelKeys()
KBAR = 0.1 * GPa


def strained(n: int, times: float, *, rattle: float = 0.05, strain: float = 0.03, wrap: bool = False) -> list[Atoms]:
    """Strained and rattled copper whose stresses are a multiple of the right ones."""
    rng, frames = np.random.default_rng(3), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        deformation = rng.uniform(-strain, strain, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (deformation + deformation.T)), scale_atoms=True)
        atoms.positions += rng.normal(scale=rattle, size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        if wrap:
            atoms.positions += rng.integers(-2, 3, size=(4, 3)) @ atoms.cell.array
        atoms.calc = SinglePointCalculator(atoms, **{**labels, "stress": times * labels["stress"]})
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("rattle", [0.0, 0.1])
def test_right_stresses_are_not_doubted(*, rattle: float, wrap: bool) -> None:
    found = check_energy_stress(strained(60, 1.0, rattle=rattle, wrap=wrap), KEYS)
    assert not found


@pytest.mark.parametrize(("times", "slope"), [(-1.0, -1.0), (2.0, 0.5), (1.0 / GPa, GPa), (-1.0 / KBAR, -KBAR)])
def test_other_signs_and_units_are_doubted(times: float, slope: float) -> None:
    found = check_energy_stress(strained(60, times), KEYS, "validation ")
    assert "energies and stresses of the validation frames contradict each other" in "".join(found)
    assert float(found[0].split("energy changes by ")[1].split()[0]) == pytest.approx(slope, rel=0.15)


@pytest.mark.parametrize("stress", [True, False])
def test_forces_are_judged_where_every_frame_has_a_cell_of_its_own(stress: bool) -> None:
    for sign in (1.0, -1.0):
        frames = strained(60, 1.0, rattle=0.1, strain=0.03 if stress else 0.002)
        for atoms in frames:
            atoms.calc.results["forces"] *= sign
            if not stress:
                del atoms.calc.results["stress"]
        found = check_energy_stress(frames, KEYS)
        assert ("energies and forces of the frames contradict each other" in "".join(found)) == (sign < 0.0)
    assert "stress of" not in "".join(found)


@pytest.mark.parametrize("rattle", [0.0, 0.05])
@pytest.mark.parametrize(
    ("order", "read"), [([0, 1, 2, 5, 3, 4], "were xy, yz, xz"), ([0, 1, 2, 5, 4, 3], "were xy, xz, yz")]
)
def test_shears_in_the_order_of_other_programs_are_doubted(order: list[int], read: str, rattle: float) -> None:
    """VASP writes xx yy zz xy yz zx, LAMMPS xx yy zz xy xz yz."""
    frames = strained(60, 1.0, rattle=rattle)
    for atoms in frames:
        atoms.calc.results["stress"] = atoms.calc.results["stress"][order]
    found = check_energy_stress(frames, KEYS)
    assert read in "".join(found)


def test_stresses_that_are_all_zero_are_doubted() -> None:
    found = check_energy_stress(strained(60, 0.0), KEYS)
    assert "the stresses of all 60 frames that have any are exactly zero" in "".join(found)


def in_one_cell(stress: float) -> list[Atoms]:
    frames = strained(20, 1.0)
    for atoms in frames:
        atoms.set_cell(frames[0].cell)
        atoms.calc.results["stress"] = np.array([stress, 0.0, 0.0, 0.0, 0.0, 0.0])
    return frames


@pytest.mark.parametrize(("stress", "doubted"), [(0.05, False), (8.0, True)])
def test_stresses_in_gigapascals_are_doubted_by_their_size(*, stress: float, doubted: bool) -> None:
    found = check_energy_stress(in_one_cell(stress), KEYS)
    assert ("half of the stresses of the frames are above 8 eV/Å³, 1.28e+03 GPa" in "".join(found)) == doubted


def test_stresses_of_high_pressures_are_right_where_the_energies_say_so() -> None:
    frames = strained(60, 1.0)
    for atoms in frames:  # an energy of P V on top, with its stress
        atoms.calc.results["energy"] -= 0.5 * atoms.cell.volume
        atoms.calc.results["stress"] -= [0.5, 0.5, 0.5, 0.0, 0.0, 0.0]
    found = check_energy_stress(frames, KEYS)
    assert not found


@pytest.mark.parametrize("changes", ["few", "far", "one cell", "not periodic", "no stress", "no energy"])
def test_what_cannot_be_compared_is_not_doubted(changes: str) -> None:
    n, times, rattle = {"few": (MIN_PAIRS, -1.0, 0.05), "far": (60, -0.1, 0.3)}.get(changes, (60, -1.0, 0.05))
    frames = strained(n, times, rattle=rattle)
    for atoms in frames:
        if changes == "one cell":
            atoms.set_cell(frames[0].cell)
        elif changes == "not periodic":
            atoms.pbc = False
        elif changes.startswith("no "):
            del atoms.calc.results[changes.removeprefix("no ")]
    found = check_energy_stress(frames, KEYS)
    assert not found
