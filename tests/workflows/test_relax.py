"""Relaxed structures: ASE's minima, batches, and failures."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from batched import BatchedEMT
from pymatgen.io.ase import AseAtomsAdaptor
from small_models import small_calculator

from ase_andersonn.workflows._cell_filter import CellFilter, log
from ase_andersonn.workflows.relax import relax, relax_each, relax_many


def distorted(symbol: str = "Cu", seed: int = 0, strain: float = 0.03) -> Atoms:
    atoms = bulk(symbol, cubic=True)
    rng = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-strain, strain, (3, 3))), scale_atoms=True)
    atoms.rattle(0.05, rng=rng)
    return atoms


@pytest.mark.parametrize("strain", [0.02, 0.2])
@pytest.mark.parametrize(
    "options", [{}, {"constant_volume": True}, {"hydrostatic_strain": True}, {"mask": [1, 1, 0, 0, 0, 1]}]
)
def test_the_cell_filter_is_ases(options: dict[str, object], strain: float) -> None:
    ours, theirs = (distorted() for _ in range(2))
    ours.calc, theirs.calc = EMT(), EMT()
    own, ase = (
        CellFilter(ours, scalar_pressure=0.1, **options),
        FrechetCellFilter(theirs, scalar_pressure=0.1, **options),
    )
    shift = np.random.default_rng(1).uniform(-strain, strain, (7, 3))
    shift[4:] *= 4
    for target in (own, ase):
        target.set_positions(target.get_positions() + shift)
    np.testing.assert_allclose(ours.cell.array, theirs.cell.array, atol=1e-12)
    np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-12)
    np.testing.assert_allclose(own.get_forces(), ase.get_forces(), atol=1e-10)


def test_the_logarithm() -> None:
    from scipy.linalg import expm

    for scale in (1e-9, 0.05, 0.4):
        matrix = scale * np.random.default_rng(0).uniform(-1, 1, (3, 3))
        np.testing.assert_allclose(log(expm(matrix)), matrix, atol=1e-14)


@pytest.mark.parametrize("cell", ["free", "fixed", "hydrostatic", "constant_volume"])
@pytest.mark.parametrize("calc", [EMT(), BatchedEMT()], ids=["alone", "batched"])
def test_the_minimum_is_ases(cell: str, calc: Calculator) -> None:
    structures = [distorted("Cu", 0), distorted("Ag", 1)]
    found = relax_many(structures, calc, cell=cell, fmax=1e-3, steps=200)
    for atoms, result in zip(structures, found, strict=True):
        expected = atoms.copy()
        expected.calc = EMT()
        target = expected
        if cell != "fixed":
            options = {"hydrostatic_strain": cell == "hydrostatic", "constant_volume": cell == "constant_volume"}
            target = FrechetCellFilter(expected, **options)
        with BFGS(target, logfile=None) as search:
            search.run(fmax=1e-3, steps=200)
        assert result.converged
        assert result.steps == search.nsteps
        assert result.fmax < 1e-3
        assert result.energy == pytest.approx(expected.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(result.atoms.positions, expected.positions, atol=1e-6)
        np.testing.assert_allclose(result.atoms.cell.array, expected.cell.array, atol=1e-6)
        assert result.atoms.get_potential_energy() == result.energy == result.energies[-1]
        if cell == "constant_volume":
            assert result.volume == pytest.approx(result.initial_volume, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "FIRE"])
def test_optimizers_and_pressure(optimizer: str) -> None:
    pressure = 5 * units.GPa
    atoms = distorted()
    before = atoms.copy()
    found = relax(atoms, EMT(), optimizer=optimizer, pressure=pressure, fmax=1e-3)
    assert found.converged
    np.testing.assert_allclose(found.atoms.get_stress(), [-pressure] * 3 + [0] * 3, atol=1e-3 * 4 / found.volume)
    assert found.enthalpy == pytest.approx(found.energy + pressure * found.volume)
    assert atoms == before  # nothing is written to the user's structure
    assert atoms.calc is None


def test_constraints_and_symmetry_stay() -> None:
    atoms = distorted() * (2, 1, 1)
    atoms.set_constraint(FixAtoms([0, 3]))
    found = relax(atoms, EMT(), cell="fixed")
    np.testing.assert_array_equal(found.atoms.positions[[0, 3]], atoms.positions[[0, 3]])
    assert [type(c) for c in found.atoms.constraints] == [FixAtoms]

    strained = bulk("Cu", cubic=True)
    strained.set_cell(strained.cell * [1.0, 1.0, 1.05], scale_atoms=True)  # tetragonal; the minimum is cubic
    reference = strained.copy()
    reference.set_constraint(FixSymmetry(reference))
    reference.calc = EMT()
    BFGS(FrechetCellFilter(reference), logfile=None).run(fmax=1e-3)
    kept = relax(strained, EMT(), fix_symmetry=True, fmax=1e-3)
    assert kept.energy == pytest.approx(reference.get_potential_energy(), abs=1e-8)
    assert kept.atoms.constraints == []


def test_structures_leave_the_batch_and_others_enter() -> None:
    calc = BatchedEMT()
    structures = [distorted(symbol, seed) for seed, symbol in enumerate(["Cu", "Ag", "Au", "Ni", "Pd"] * 2)]
    taken = []

    def one_after_another() -> object:
        for k, atoms in enumerate(structures):
            taken.append(k)
            yield atoms

    found = relax_each(one_after_another(), calc, batch_atoms=12, fmax=0.05)
    assert not taken
    first, _ = next(found)
    assert len(taken) < len(structures)
    assert sorted([first, *(k for k, _ in found)]) == list(range(10))
    assert max(map(sum, calc.batches)) == 12
    assert np.mean([len(batch) for batch in calc.batches]) > 2.5


class Broken(BatchedEMT):
    """EMT that fails, or returns nan, for some elements."""

    def evaluate(self, structures: list[Atoms], **options: bool) -> list[dict[str, object]]:
        if any("Pt" in atoms.symbols for atoms in structures):
            raise RuntimeError("no platinum today")
        found = super().evaluate(structures, **options)
        for atoms, results in zip(structures, found, strict=True):
            if "Au" in atoms.symbols:
                results["energy"] = float("nan")
        return found

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> object:
        return self.evaluate([atoms], stress=name == "stress")[0][name]


def test_failures_are_results(tmp_path: Path) -> None:
    (tmp_path / "bad.cif").write_text("no crystal")
    missing = tmp_path / "none.cif"
    given = [
        distorted("Cu"),
        distorted("Pt"),
        distorted("Au"),
        tmp_path / "bad.cif",
        missing,
        3,
        distorted("Ag"),
        Atoms(),
    ]
    found = relax_many(given, Broken())
    assert [result.converged for result in found] == [True, False, False, False, False, False, True, False]
    for result, words in zip(found, [0, "platinum", "finite", "bad.cif", "no file", "int", 0, "no atoms"], strict=True):
        assert words in result.error if words else result.error is None
        json.dumps(result.to_dict(), allow_nan=False)
    assert len(found[1].atoms) == 4
    assert found[3].atoms is None
    assert not relax(distorted(), EMT(), steps=2).converged
    assert relax(distorted(), EMT(), steps=2).error.startswith("not converged after 2 steps: fmax = ")
    with pytest.raises(RuntimeError, match="platinum"):
        relax(distorted("Pt"), Broken())


def test_explosions_end() -> None:
    atoms = bulk("Ar", cubic=True, a=5.3)
    found = relax(atoms, LennardJones(sigma=3.4, epsilon=0.01, rc=8.0), pressure=-0.5, steps=400)
    assert not found.converged
    assert "volume" in found.error
    assert found.atoms is not None


def test_molecules_slabs_and_other_projects_structures(tmp_path: Path) -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    crystal = AseAtomsAdaptor.get_structure(distorted())
    bulk("Cu").write(tmp_path / "Cu.cif")
    found = relax_many([molecule("CO"), slab, crystal, str(tmp_path / "Cu.cif")], BatchedEMT(), fmax=0.01)
    assert all(result.converged for result in found)
    assert np.isnan(found[0].volume)
    np.testing.assert_array_equal(found[1].atoms.cell.array, slab.cell.array)
    assert found[2].energy / 4 == pytest.approx(found[3].energy, abs=1e-4)
    found[0].plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size


def test_equilibrium_potential() -> None:
    structures = [bulk("Si"), molecule("H2O")]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    together = relax_many(structures, small_calculator(), cell="fixed", fmax=1e-3)
    alone = [relax(atoms, small_calculator(), cell="fixed", fmax=1e-3) for atoms in structures]
    for one, other in zip(together, alone, strict=True):
        assert one.converged
        assert one.energy == pytest.approx(other.energy, abs=1e-5)  # fmax² over the softest curvature


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fmax": 0}, "fmax is 0"),
        ({"fmax": float("nan")}, "fmax"),
        ({"steps": -1}, "steps"),
        ({"cell": "cubic"}, "cell is 'cubic'"),
        ({"cell": [True] * 5}, "six"),
        ({"cell": None}, "cell is None"),
        ({"pressure": float("inf")}, "pressure"),
        ({"pressure": "5 GPa"}, "pressure"),
        ({"pressure": 1.0, "cell": "fixed"}, "changes nothing"),
        ({"optimizer": "BFGSLineSearch"}, "optimizer"),
        ({"batch_atoms": 0}, "batch_atoms"),
    ],
)
def test_options_without_a_meaning(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        relax_each(iter([bulk("Cu")]), EMT(), **options)
    with pytest.raises(ValueError, match=words):
        relax(bulk("Cu"), EMT(), **options)


def test_arguments_in_the_wrong_place() -> None:
    with pytest.raises(TypeError, match="several"):
        relax_many(bulk("Cu"), EMT())
    with pytest.raises(TypeError, match="ASE calculator"):
        relax(bulk("Cu"), EMT)
    with pytest.raises(ValueError, match="three directions"):
        relax(molecule("CO"), EMT(), cell="free")
    with pytest.raises(ValueError, match="space groups"):
        relax(molecule("CO"), EMT(), fix_symmetry=True)
