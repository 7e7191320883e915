"""Many moves at once give the same averages as one after the other, those of an exact enumeration."""

import math

import numpy as np
import pytest
from ase import Atoms, units
from mc_systems import Energy, Ising, Sites, assert_mean, enumerate_ising, lattice, sample

from ase_andersonn.mc import MetropolisMC, SpeciesSwap, SpinFlip, Sublattice, Transmutation

SIDE = 4


def run_ising(move, T_in_J, field, steps, seed, **kwargs):
    atoms = lattice(SIDE)
    atoms.calc = Ising(SIDE, field=field)
    mc = MetropolisMC(atoms, T_in_J / units.kB, move, seed=seed, **kwargs)
    mc.run(50)
    return mc, sample(mc, lambda a: [mc.energy, abs(a.arrays["initial_magmoms"].sum())], steps)


@pytest.mark.parametrize(("kT", "field"), [(2.5, 0.0), (4.0, 0.5)])
@pytest.mark.parametrize(
    ("move", "moves_per_step", "steps"),
    [
        (SpinFlip(), 16, 2000),
        (Sublattice(SpinFlip()), 4, 2500),
        (Sublattice(SpinFlip(), fraction=1.0), 2, 3000),
    ],
    ids=["single", "half", "whole"],
)
def test_ising_lattice(kT, field, move, moves_per_step, steps):
    energy, square, moment = enumerate_ising(SIDE, kT, field=field)
    mc, values = run_ising(move, kT, field, steps, seed=11, moves_per_step=moves_per_step)
    assert_mean(values[:, 0], energy, 0.3)
    assert_mean((values[:, 0] - energy) ** 2, square - energy**2, 0.3)
    assert_mean(values[:, 1], moment, 0.25)
    assert mc.energy == pytest.approx(mc.atoms.get_potential_energy(), abs=1e-9)


def test_single_and_many_moves_mix():
    energy, _, moment = enumerate_ising(SIDE, 2.5)
    moves = [SpinFlip(), Sublattice(SpinFlip())]
    mc, values = run_ising(moves, 2.5, 0.0, 3000, seed=12, moves_per_step=4)
    assert_mean(values[:, 0], energy, 0.2)
    assert_mean(values[:, 1], moment, 0.2)
    assert set(mc.statistics) == {"SpinFlip", "Sublattice(SpinFlip)"}


@pytest.mark.parametrize("indices", [None, [0, 1, 2, 3, 5]])
def test_transmutation_of_an_ideal_solution(indices):
    """x_s = exp((mu_s - e_s) / kT) / sum on the sites that may change."""
    kT = units.kB * 300.0
    atoms = Atoms("Cu8Ag2", positions=3.0 * np.arange(30).reshape(10, 3))
    atoms.calc = Sites({28: 0.02, 79: -0.01})
    move = Transmutation({"Cu": 0.0, "Ni": 0.05, "Au": -0.01}, indices=indices)
    mc = MetropolisMC(atoms, 300.0, Sublattice(move), seed=13)
    values = sample(mc, lambda a: [(a.numbers == z).sum() for z in (29, 28, 79, 47)], 4000)
    weights = np.exp(np.array([0.0, 0.03, 0.0]) / kT)
    x = weights / weights.sum()
    n, still = (8, 0) if indices is None else (5, 3)
    for k in range(3):
        assert_mean(values[:, k] - still * (k == 0), n * x[k], 0.35)
    assert_mean((values[:, 1] - n * x[1]) ** 2, n * x[1] * (1 - x[1]), 0.45)
    assert (values[:, 3] == 2).all()


def test_it_mixes_with_swaps_whose_lists_follow():
    atoms = Atoms("Cu4Ni4", positions=3.0 * np.arange(24).reshape(8, 3))
    atoms.calc = Sites({28: 0.01})
    mu = {"Cu": 0.0, "Ni": 0.01}
    mc = MetropolisMC(atoms, 300.0, [SpeciesSwap(), Sublattice(Transmutation(mu)), Transmutation(mu)], seed=14)
    assert_mean(sample(mc, lambda a: (a.numbers == 28).sum(), 3000), 4.0, 0.15)
    members = mc.context.by_species().members
    for number, list_of in members.items():
        assert sorted(list_of) == np.flatnonzero(atoms.numbers == number).tolist()


def test_energies_that_are_not_finite_are_refused_and_counted():
    class Holes(Ising):
        def trial_energy_changes(self, atoms, changed):
            changes = super().trial_energy_changes(atoms, changed)
            changes[changed == 0] = math.nan
            changes[changed == 2] = -math.inf
            changes[changed == 5] = math.inf
            return changes

    atoms = lattice(SIDE)
    atoms.calc = Holes(SIDE)
    mc = MetropolisMC(atoms, 10.0 / units.kB, Sublattice(SpinFlip(), fraction=1.0), seed=15)
    mc.run(60)
    moments = atoms.get_initial_magnetic_moments()
    assert (moments[[0, 2, 5]] == 1).all()
    assert (moments == -1).any()
    assert mc.statistics["Sublattice(SpinFlip)"].nonfinite > 60
    assert mc.energy == pytest.approx(atoms.get_potential_energy())


def test_huge_energies_do_not_overflow():
    atoms = lattice(SIDE)
    atoms.calc = Ising(SIDE, coupling=1e6)
    with np.errstate(all="raise"):
        MetropolisMC(atoms, 1e-3, Sublattice(SpinFlip(), fraction=1.0), seed=16).run(20)
    assert (atoms.get_initial_magnetic_moments() == 1).all()


def test_an_error_puts_the_atoms_back_and_the_run_can_go_on():
    class Fails(Ising):
        fail = False

        def trial_energy_changes(self, atoms, changed):
            if self.fail:
                raise RuntimeError("out of order")
            return super().trial_energy_changes(atoms, changed)

    atoms = lattice(SIDE)
    atoms.calc = Fails(SIDE)
    mc = MetropolisMC(atoms, 3.0 / units.kB, Sublattice(SpinFlip()), seed=17)
    mc.run(5)
    before, atoms.calc.fail = atoms.get_initial_magnetic_moments(), True
    with pytest.raises(RuntimeError, match="out of order"):
        mc.run(5)
    np.testing.assert_array_equal(atoms.get_initial_magnetic_moments(), before)
    atoms.calc.fail = False
    mc.run(20)
    mc.check_energy()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sublattice(SpeciesSwap()), "SpinFlip or Transmutation"),
        (lambda: Sublattice(SpinFlip(), fraction=0.0), "in \\(0, 1\\]"),
        (lambda: Sublattice(SpinFlip(), fraction=1.5), "in \\(0, 1\\]"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_calculator_without_many_energies_is_refused():
    atoms = lattice(SIDE)
    atoms.calc = Energy(lambda a: 0.0)
    with pytest.raises(ValueError, match="trial_energy_changes"):
        MetropolisMC(atoms, 300, Sublattice(SpinFlip()))


def test_full_energies_do_not_do():
    atoms = lattice(SIDE)
    atoms.calc = Ising(SIDE)
    with pytest.raises(ValueError, match="leave out local=False"):
        MetropolisMC(atoms, 300, Sublattice(SpinFlip()), local=False)


@pytest.mark.parametrize("sets", [[range(15)], [range(16), [3]], [range(1, 17)]])
def test_sets_that_are_no_partition_are_refused(sets):
    atoms = lattice(SIDE)
    atoms.calc = Ising(SIDE)
    with pytest.raises(ValueError, match="each atom exactly once"):
        MetropolisMC(atoms, 300, Sublattice(SpinFlip(), sets=[list(one) for one in sets]))
