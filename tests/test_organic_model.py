"""The packaged organic model: errors on molecules made by the project, and molecules that stay what they are."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.structures.files import read_file
from ase_andersonn.training import evaluate_dataset

GEOMETRIES = Path(__file__).parents[1] / "data" / "organic" / "geometries.extxyz"
MOLECULES = (
    *("CH3CH2OH", "CH3COOH", "C6H6", "CH3CN", "CH3SCH3", "CH3CONH2", "CH3Cl", "H2CCHF", "CH3SH", "PH3", "CCl4", "CF4"),
    *("H2", "H2O", "NH3", "CO2", "HF", "HCl", "N2"),
)


def organic(**options: object) -> AndersoNN:
    return AndersoNN("organic", **{"dtype": "float64", "tol": 1e-9, "compile": False, **options})


def bonds(atoms: Atoms) -> set[tuple[int, int]]:
    radii = covalent_radii[atoms.numbers]
    near = atoms.get_all_distances() < 1.3 * (radii[:, None] + radii)
    return {(int(i), int(j)) for i, j in np.argwhere(np.triu(near, 1))}


def test_errors_of_geometries_that_the_project_makes() -> None:
    """Molecules and pairs far from rest; forces of 4 eV/Å in the mean."""
    frames = read_file(GEOMETRIES)
    row = evaluate_dataset(load_model("organic"), frames).errors["all"]
    assert row.forces.mae < 0.14
    assert row.energy.mae < 0.008


@pytest.mark.parametrize("name", MOLECULES)
def test_molecules_keep_their_bonds_in_a_relaxation(name: str) -> None:
    """Bonds of a molecule relaxed from a rattled start are within 0.05 Å of those of MP2/6-31G*, as ASE has them."""
    reference = molecule(name)
    atoms = reference.copy()
    atoms.rattle(0.05, seed=0)
    atoms.calc = organic()
    with BFGS(atoms, logfile=None) as search:
        assert search.run(fmax=0.01, steps=300)
    assert bonds(atoms) == bonds(reference)
    for i, j in bonds(reference):
        assert atoms.get_distance(i, j) == pytest.approx(reference.get_distance(i, j), abs=0.05)


@pytest.mark.parametrize(
    ("name", "energy", "length"),
    [
        ("CO2", -280.50727, 1.14365),
        ("N2", -156.84467, 1.09822),
        ("SO2", -309.32508, 1.43421),
        ("CS2", -234.31295, 1.55011),
    ],
)
def test_molecules_that_force_fields_get_wrong(name: str, energy: float, length: float) -> None:
    """Relaxed, they are as in GFN2-xTB: energy in eV and bond in Å (tblite 0.8.0)."""
    atoms = molecule(name)
    atoms.calc = organic()
    with BFGS(atoms, logfile=None) as search:
        assert search.run(fmax=0.001, steps=100)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=0.03)
    assert atoms.get_distance(0, 1) == pytest.approx(length, abs=0.01)


def test_forces_are_gradients() -> None:
    atoms = molecule("CH3COCl")
    atoms.rattle(0.05, seed=1)
    atoms.calc = organic(tol=1e-14, warm_start=False)
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), rtol=0, atol=1e-6)


def test_molecules_beyond_each_other_s_reach_do_not_know_of_each_other() -> None:
    first, second = molecule("CH3CH2OH"), molecule("CH3CN")
    both = first.copy()
    second.translate([30.0, 0.0, 0.0])
    both += second
    calc = organic()
    alone = [calc.get_potential_energy(atoms) for atoms in (first, second)]
    assert calc.get_potential_energy(both) == pytest.approx(sum(alone), abs=1e-6)


def test_a_molecule_stays_together_in_dynamics() -> None:
    atoms = molecule("CH3CH2OH")
    before = bonds(atoms)
    atoms.calc = organic(dtype="float32", tol=1e-6)
    rng = np.random.default_rng(0)
    settings = {"temperature_K": 300.0, "friction": 0.01 / units.fs, "rng": rng, "fixcm": False}
    Langevin(atoms, 0.5 * units.fs, **settings).run(500)
    assert bonds(atoms) == before
    assert atoms.get_temperature() < 800.0
