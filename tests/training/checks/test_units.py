"""Lengths and labels in other units than Å, eV, eV/Å and eV/Å³ are doubted, right ones are not."""

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree, kcal, kJ, mol
from copper_frames import copper, relabelled, trajectory

from ase_andersonn.training.checks.units import check_lengths_of, check_units, thomas_fermi
from ase_andersonn.training.config import LabelKeys

KEYS = LabelKeys()


@pytest.mark.parametrize(("unit", "doubted"), [(1.0, False), (kJ / mol, True)])
def test_steep_forces_are_doubted(*, unit: float, doubted: bool) -> None:
    found = check_units(relabelled(trajectory(20), unit, unit, 1.0), KEYS)
    assert ("the root mean square forces of half of the frames are above" in "".join(found)) == doubted


TOTAL = {"CH4": -40.52, "H2O": -76.42, "C6H6": -232.2, "CH3CONH2": -209.2, "SO2": -548.7}
"""Energies with all electrons in Hartree, by coupled cluster or density functionals, to four digits."""


@pytest.mark.parametrize(
    ("name", "unit"), [("Hartree", Hartree), ("kcal/mol", kcal / mol), ("kJ/mol", kJ / mol), ("", 1.0)]
)
def test_energies_of_all_electrons_in_other_units_are_doubted(name: str, unit: float) -> None:
    frames = []
    for formula, energy in TOTAL.items():
        frames.append(molecule(formula))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=energy * Hartree / unit)
    found = check_units(frames, KEYS, "validation ")
    said = f"the energies of the validation frames are as large as those of all their electrons are in {name}."
    assert (said in "".join(found)) if name else not found


@pytest.mark.parametrize(("symbol", "energy"), [("C", -37.84), ("Ne", -128.94), ("Ar", -527.5), ("Kr", -2752.1)])
def test_free_atoms_have_about_the_thomas_fermi_energy(symbol: str, energy: float) -> None:
    assert thomas_fermi(Atoms(symbol).numbers) == pytest.approx(energy, rel=0.01)


def test_ordinary_labels_are_in_the_right_units() -> None:
    found = check_units([*copper(20), Atoms("Cu")], KEYS)
    assert not found


def test_lengths_in_another_unit_are_refused() -> None:
    frames = copper(9)
    check_lengths_of(frames)
    for k, atoms in enumerate(frames):
        if k % 3 == 0:  # some may be collisions
            atoms.set_cell(0.1 * atoms.cell, scale_atoms=True)
    check_lengths_of(frames)
    for k, atoms in enumerate(frames):
        if k % 3 == 1:
            atoms.set_cell(0.1 * atoms.cell, scale_atoms=True)
    with pytest.raises(ValueError, match=r"6 of 9 frames hold atoms too close together: Cu4: atoms .* Are the lengths"):
        check_lengths_of(frames)


@pytest.mark.parametrize(("times", "doubted"), [(1.0, False), (1.0 / Bohr, True)])
@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Cu", cubic=True) * (3, 3, 3),
        bulk("Cu"),
        bulk("W", cubic=True) * (3, 3, 3),
        bulk("Si", cubic=True),
        bulk("NaCl", "rocksalt", a=5.64),
        molecule("CH3CN"),
        molecule("C2H2"),
        molecule("H2O"),
    ],
    ids=str,
)
def test_lengths_in_bohr_are_doubted(atoms: Atoms, *, times: float, doubted: bool) -> None:
    frames = [Atoms("Cu")]
    for seed in range(5):
        frames.append(atoms.copy())
        frames[-1].rattle(0.1 if len(atoms) > 50 else 0.03, seed=seed)
        frames[-1].cell *= times
        frames[-1].positions *= times
    found = check_lengths_of(frames, "validation ")
    assert ("of 5 validation frames most atoms have no other nearer than 1.35 times" in "".join(found)) == doubted
