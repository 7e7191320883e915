"""Trial energies of Monte Carlo moves: overlaps, warm starts, Metropolis runs."""

import math

import numpy as np
import pytest
from ase.build import bulk
from small_models import small_calculator, small_model

from ase_andersonn import AndersoNN, MetropolisMC
from ase_andersonn.mc import Displacement
from ase_andersonn.tiles import Tiles


@pytest.mark.parametrize("tiles", [None, Tiles(focus=5.0, context=5.0)])
def test_an_overlap_is_an_infinite_energy_and_leaves_the_committed_state(tiles: Tiles | None) -> None:
    calc, atoms = small_calculator(tiles=tiles), bulk("Si", cubic=True).repeat((3, 1, 1))
    everything = np.arange(len(atoms))
    energy = calc.trial_energy(atoms, everything)
    calc.commit(True)
    atoms.positions[1] += 0.1
    moved = calc.trial_energy(atoms, np.array([1]))
    calc.commit(False)
    atoms.positions[1] = atoms.positions[0]
    assert calc.trial_energy(atoms, np.array([1])) == math.inf
    calc.commit(False)
    atoms.positions[1] = bulk("Si", cubic=True).positions[1] + 0.1
    assert calc.trial_energy(atoms, np.array([1])) == pytest.approx(moved, abs=1e-9)
    calc.commit(True)
    atoms.positions[1] -= 0.1
    assert calc.trial_energy(atoms, np.array([1])) == pytest.approx(energy, abs=1e-9)
    calc.commit(True)


def test_many_atoms_start_a_move_from_the_solutions_before_it() -> None:
    calc, atoms = AndersoNN(small_model(), dtype="float64", tol=1e-8, compile=False), bulk("Si", cubic=True) * (4, 4, 3)
    calc.trial_energy(atoms, np.arange(len(atoms)))
    calc.commit(True)
    rng = np.random.default_rng(0)
    for atom in (5, 200, 77):
        moved = atoms.copy()
        moved.positions[atom] += rng.normal(0.0, 0.05, 3)
        energy = calc.trial_energy(moved, np.array([atom]))
        calc.commit(False)
        fresh = AndersoNN(small_model(), dtype="float64", tol=1e-8, compile=False, warm_start=False)
        assert energy == pytest.approx(fresh.get_potential_energy(moved), abs=1e-8 * len(atoms))
    assert len(calc.evaluator.warm_start.predictor) == 4
    moved.numbers[3] = 6
    calc.trial_energy(moved, np.array([3]))
    assert len(calc.evaluator.warm_start.predictor) == 1, "another element is another structure"
    calc.trial_energy(moved, np.arange(len(atoms)))
    assert len(calc.evaluator.warm_start.predictor) == 1, "nothing is taken from before where all atoms are named"


@pytest.mark.parametrize("tiles", [None, Tiles(focus=5.0, context=5.0)])
def test_metropolis_keeps_the_energy_of_its_atoms(tiles: Tiles | None) -> None:
    atoms = bulk("Si", cubic=True).repeat((3, 1, 1))
    atoms.calc = small_calculator(tiles=tiles)
    mc = MetropolisMC(atoms, 2000.0, [Displacement(0.3)], seed=1)
    mc.run(30)
    assert 0 < mc.statistics["Displacement"].accepted < 30
    fresh = small_calculator(tiles=tiles)
    assert mc.energy == pytest.approx(fresh.get_potential_energy(atoms.copy()), abs=1e-8)
