"""Every kind of move samples what it should, on systems whose answers are known."""

import itertools
import math

import numpy as np
import pytest
from ase import Atoms, units
from mc_systems import Energy, LocalEnergyOf, assert_mean, sample

from ase_andersonn.mc import (
    CellChange,
    Displacement,
    Exchange,
    MetropolisMC,
    SpeciesSwap,
    SpinFlip,
    Transmutation,
    VolumeChange,
    thermal_wavelength,
)

T = 300.0
kT = units.kB * T


def calculator(one_atom, local):
    """The sum over atoms of a function of one atom, evaluated locally or in full."""
    calc = LocalEnergyOf(one_atom)
    return calc if local else Energy(calc.get_potential_energy)


def box(symbols, side=5.0, seed=0, **kwargs):
    n = len(Atoms(symbols))
    positions = side * np.random.default_rng(seed).random((n, 3))
    return Atoms(symbols, positions=positions, cell=[side] * 3, pbc=True, **kwargs)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("n_atoms", [1, 3])
def test_displacements_of_a_harmonic_crystal_obey_equipartition(local, n_atoms):
    """<E> = 3/2 N kT, and each coordinate has <k x^2> = kT."""
    stiffness = np.array([0.5, 1.0, 2.0])
    sites = 3.0 * np.arange(12).reshape(4, 3)
    atoms = Atoms("Ar4", positions=sites)
    atoms.calc = calculator(lambda i, r, z, m: 0.5 * (stiffness * (r - sites[i]) ** 2).sum(1), local)
    mc = MetropolisMC(atoms, T, Displacement(0.5, n_atoms=n_atoms), seed=1, equilibration=2000)
    mc.run(2000)
    squares = sample(mc, lambda a: ((a.positions - sites) ** 2).mean(0), 10000, every=2)
    assert_mean(mc_energy := 0.5 * (squares * stiffness).sum(1) * 4, 1.5 * 4 * kT, 0.2)
    for axis in range(3):
        assert_mean(squares[:, axis], kT / stiffness[axis], 0.4)
    assert mc.energy_estimate.mean == pytest.approx(mc_energy.mean(), rel=0.02)
    assert 0.3 < mc.statistics["Displacement"].acceptance < 0.5


@pytest.mark.parametrize("local", [True, False])
def test_exchange_of_an_ideal_gas_is_poisson(local):
    """<N> = <(N - <N>)^2> = z V and P(0) = exp(-z V); here in a field that costs energy in half of the box."""
    side, cost, zV = 8.0, 0.03, 4.0
    mu = kT * math.log(zV * thermal_wavelength(39.948, T) ** 3 / side**3)
    atoms = box("Ar2", side)
    atoms.calc = calculator(lambda i, r, z, m: cost * (r[:, 0] % side < 0.5 * side), local)
    mc = MetropolisMC(atoms, T, [Exchange("Ar", mu), Displacement(2.0)], seed=2, weights=[8, 1])
    expected = zV * 0.5 * (1.0 + math.exp(-cost / kT))
    counts = sample(mc, len, 12000)
    assert_mean(counts, expected, 0.2)
    assert_mean((counts - expected) ** 2, expected, 0.45)
    assert_mean(counts == 0, math.exp(-expected), 0.7)
    assert counts.min() == 0
    assert mc.statistics["Exchange"].impossible > 0


def test_the_wavelength_is_that_of_argon():
    """15.9 pm at 300 K; and it falls with the square root of mass and temperature."""
    assert thermal_wavelength(39.948, 300.0) == pytest.approx(0.15954, rel=1e-3)
    assert thermal_wavelength(4 * 39.948, 1200.0) == pytest.approx(thermal_wavelength(39.948, 300.0) / 4)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("move", [VolumeChange, CellChange])
def test_volume_of_an_ideal_gas_at_constant_pressure(move, local):
    """V is Gamma distributed: <V> = (N + 1) kT / p, variance (N + 1) (kT / p)^2, also where energy holds the shape."""
    n, pressure = 4, 1e-3
    atoms = box("Ar4", 6.0)

    def shape(a):
        return 0.05 * (a.cell.array**2).sum() / a.get_volume() ** (2 / 3)

    atoms.calc = calculator(lambda i, r, z, m: np.full(len(i), shape(atoms) / len(i)), local)
    mc = MetropolisMC(atoms, T, move(pressure, step=0.9 if move is VolumeChange else 0.4), seed=3)
    volumes = sample(mc, lambda a: abs(np.linalg.det(a.cell.array)), 6000)
    assert_mean(volumes, (n + 1) * kT / pressure, 0.2)
    assert_mean((volumes - (n + 1) * kT / pressure) ** 2, (n + 1) * (kT / pressure) ** 2, 0.4)
    assert mc.energy == pytest.approx(shape(atoms))


def test_scaled_positions_stay_when_the_cell_changes():
    atoms = box("Ar4")
    scaled = atoms.get_scaled_positions(wrap=False)
    atoms.calc = Energy(lambda a: 0.0)
    MetropolisMC(atoms, T, [CellChange(step=0.1), VolumeChange(step=0.1)], seed=3).run(50)
    np.testing.assert_allclose(atoms.get_scaled_positions(wrap=False), scaled, atol=1e-10)
    assert not np.allclose(atoms.cell.array, np.diag([5.0] * 3), atol=0.1)


def test_lengths_of_a_cell_on_springs():
    """With E = k/2 sum_i (ln L_i)^2 and p = 0, ln L_i is normal with mean (N + 1) kT / k and variance kT / k."""
    stiffness, n = 1.0, 4
    atoms = box("Ar4", 1.2)
    atoms.calc = Energy(lambda a: 0.5 * stiffness * (np.log(a.cell.lengths()) ** 2).sum())
    mc = MetropolisMC(atoms, T, CellChange(step=0.35, mask=[1, 1, 1, 0, 0, 0]), seed=4)
    logs = sample(mc, lambda a: np.log(a.cell.lengths()), 6000)
    for axis in range(3):
        assert_mean(logs[:, axis], (n + 1) * kT / stiffness, 0.4)
        assert_mean((logs[:, axis] - (n + 1) * kT / stiffness) ** 2, kT / stiffness, 0.4)


@pytest.mark.parametrize("local", [True, False])
def test_swaps_visit_each_arrangement_as_its_energy_says(local):
    """Three species on six sites: 60 arrangements, whose Boltzmann factors are enumerated."""
    costs = {29: 0.0, 28: 0.03, 79: -0.02}
    site = np.array([0.0, 1.0, 2.0, 0.5, -1.0, 0.0])
    atoms = Atoms("Cu3Ni2Au", positions=3.0 * np.arange(18).reshape(6, 3))
    cost_of = np.vectorize(costs.get)
    atoms.calc = calculator(lambda i, r, z, m: site[i] * cost_of(z), local)
    expected = {}
    for arrangement in set(itertools.permutations(atoms.numbers.tolist())):
        expected[arrangement] = math.exp(-(site * cost_of(np.array(arrangement))).sum() / kT)
    norm = sum(expected.values())
    assert len(expected) == 60
    mc = MetropolisMC(atoms, T, SpeciesSwap(), seed=5)
    seen = sample(mc, lambda a: a.numbers.copy(), 10000, every=2)
    assert (np.sort(seen, 1) == np.sort(atoms.numbers)).all()
    likeliest = sorted(expected, key=expected.get)[-5:]
    for arrangement in [*likeliest, *sorted(expected, key=expected.get)[20:25]]:
        assert_mean((seen == np.array(arrangement)).all(1), expected[arrangement] / norm, 4)
    for place, number in itertools.product(range(6), costs):
        share = sum(weight for arrangement, weight in expected.items() if arrangement[place] == number) / norm
        assert_mean(seen[:, place] == number, share, 1.2)


def test_swaps_keep_to_the_species_and_atoms_asked_for():
    atoms = Atoms("Cu3Ni3Au3", positions=3.0 * np.arange(27).reshape(9, 3))
    atoms.calc = Energy(lambda a: 0.0)
    atoms.set_masses([10.0 + number for number in atoms.numbers])
    mc = MetropolisMC(atoms, T, SpeciesSwap(["Cu", "Ni"], indices=[0, 1, 3, 4, 6]), seed=6)
    seen = sample(mc, lambda a: a.numbers.copy(), 200)
    assert (seen[:, [2, 5, 6, 7, 8]] == [29, 28, 79, 79, 79]).all()
    for free in (0, 1, 3, 4):
        assert set(seen[:, free]) == {28, 29}
    np.testing.assert_array_equal(atoms.get_masses(), 10.0 + atoms.numbers)


@pytest.mark.parametrize("local", [True, False])
def test_transmutation_of_an_ideal_solution_is_multinomial(local):
    """x_s = exp((mu_s - e_s) / kT) / sum; the number of one species is binomial."""
    mu = {"Cu": 0.0, "Ni": 0.05, "Au": -0.01}
    costs = np.zeros(120)
    costs[[28, 79]] = 0.02, -0.01
    atoms = Atoms("Cu6Ag", positions=3.0 * np.arange(21).reshape(7, 3))
    atoms.calc = calculator(lambda i, r, z, m: costs[z], local)
    mc = MetropolisMC(atoms, T, Transmutation(mu), seed=7)
    weights = np.exp(np.array([0.0, 0.03, 0.0]) / kT)
    x = weights / weights.sum()
    counts = sample(mc, lambda a: [(a.numbers == z).sum() for z in (29, 28, 79, 47)], 8000)
    for k in range(3):
        assert_mean(counts[:, k], 6 * x[k], 0.2)
        assert_mean((counts[:, k] - 6 * x[k]) ** 2, 6 * x[k] * (1 - x[k]), 0.3)
    assert (counts[:, 3] == 1).all()


@pytest.mark.parametrize("local", [True, False])
def test_spins_in_a_field(local):
    """<m> = tanh(h / kT); an atom without a moment stays so."""
    field = 0.6 * kT
    atoms = Atoms("Fe4Cu", positions=3.0 * np.arange(15).reshape(5, 3), magmoms=[1, -1, 1, 1, 0])
    atoms.calc = calculator(lambda i, r, z, m: -field * m, local)
    mc = MetropolisMC(atoms, T, SpinFlip(), seed=8)
    moments = sample(mc, lambda a: a.get_initial_magnetic_moments(), 8000)
    assert set(np.unique(moments[:, :4])) == {-1.0, 1.0}
    assert (moments[:, 4] == 0).all()
    for k in range(4):
        assert_mean(moments[:, k], math.tanh(field / kT), 0.4)


def test_a_mixture_of_moves_samples_the_product_of_their_distributions():
    """Swaps, displacements and volume moves of particles whose springs depend on their species."""
    pressure, n = 2e-3, 4
    atoms = box("Ar2Ne2", 6.0, seed=1)
    atoms.calc = Energy(lambda a: 0.02 * (a.numbers[:2] == 10).sum())
    moves = [VolumeChange(pressure, step=0.9), SpeciesSwap(), Displacement(1.0)]
    mc = MetropolisMC(atoms, T, moves, weights=[2, 2, 1], seed=9)
    values = sample(mc, lambda a: [a.get_volume(), (a.numbers[:2] == 10).sum()], 7500)
    assert_mean(values[:, 0], (n + 1) * kT / pressure, 0.15)
    w = np.array([1.0, 4.0, 1.0]) * np.exp(-0.02 * np.arange(3) / kT)
    assert_mean(values[:, 1], (w * np.arange(3)).sum() / w.sum(), 0.2)
    tried = [record.attempted for record in mc.statistics.values()]
    assert np.allclose(np.array(tried) / 7500, [0.4, 0.4, 0.2], atol=0.02)
