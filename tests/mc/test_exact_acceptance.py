"""Every decision of every ensemble, without sampling: accepted exactly where u <= pi' q' / (pi q)."""

import math

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.data import atomic_masses
from dice import EDGE, Dice, Verdicts
from mc_systems import Energy, Ising, LocalEnergyOf, lattice

from ase_andersonn.mc import (
    CellChange,
    Displacement,
    Exchange,
    MetropolisMC,
    ParallelTempering,
    SpeciesSwap,
    SpinFlip,
    Sublattice,
    Transmutation,
    VolumeChange,
    thermal_wavelength,
)
from ase_andersonn.mc.criteria import accepted, accepted_each

TEMPERATURES = [77.0, 1234.5]
MU = {"Cu": 0.02, "Ni": -0.03, "Au": 0.05}
ARGON = float(atomic_masses[18])
COST = np.zeros(120)
COST[[28, 29, 79]] = 0.04, 0.0, -0.02


def beta(T):
    """1 / kT, 1/eV, with Boltzmann's constant written out."""
    return 1.0 / (8.617330337217213e-05 * T)


def energy_of(i, r, z, m):
    """A field, springs, and costs of species and spins that differ from site to site, eV."""
    return 0.02 * (np.sin(r) ** 2).sum(1) + COST[z] * (1.0 + 0.3 * np.cos(i)) + 0.03 * m * np.cos(3.0 * i)


def total(atoms):
    return LocalEnergyOf(energy_of).get_potential_energy(atoms)


def alloy(local=True, symbols="Cu3Ni2Au", side=7.0):
    n = len(Atoms(symbols))
    positions = side * np.random.default_rng(n).random((n, 3))
    atoms = Atoms(symbols, positions=positions, cell=[side, 1.1 * side, 0.9 * side], pbc=True, magmoms=[1.0] * n)
    atoms.calc = LocalEnergyOf(energy_of) if local else Energy(total)
    return atoms


CANONICAL = {
    "displacement": Displacement(0.5),
    "of three": Displacement(0.4, n_atoms=3),
    "swap": SpeciesSwap(),
    "flip": SpinFlip(),
}


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("name", CANONICAL)
def test_canonical(name, local, T):
    """ln pi = -E / kT."""
    mc = MetropolisMC(alloy(local), T, CANONICAL[name], seed=0)
    Verdicts(mc, lambda a: -beta(T) * total(a)).run(200)


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("move", [VolumeChange, CellChange])
@pytest.mark.parametrize("pressure", [0.0, 0.02, -0.005])
def test_constant_pressure(pressure, move, T):
    """ln pi = -(E + p V) / kT + (N + 1) ln V in ln V and scaled positions; the cell's shape is even in the strain."""
    mc = MetropolisMC(alloy(), T, move(pressure, step=0.3 if move is VolumeChange else 0.15), seed=0)

    def log_weight(a):
        return -beta(T) * (total(a) + pressure * a.get_volume()) + (len(a) + 1) * math.log(a.get_volume())

    Verdicts(mc, log_weight).run(150)


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("local", [True, False])
def test_semi_grand_canonical(local, T):
    """ln pi = -(E - sum_s mu_s N_s) / kT."""

    def log_weight(a):
        return -beta(T) * (total(a) - sum(MU[symbol] for symbol in a.symbols))

    Verdicts(MetropolisMC(alloy(local), T, Transmutation(MU), seed=0), log_weight).run(200)


def log_z(mu, mass, T):
    """exp(mu / kT) / wavelength^3, with h and k of 2019 in SI."""
    wavelength = 6.62607015e-34 / math.sqrt(2.0 * math.pi * mass * 1.66053906660e-27 * 1.380649e-23 * T)
    return mu / (1.380649e-23 / 1.602176634e-19 * T) - 3.0 * math.log(wavelength * 1e10)


@pytest.mark.parametrize(("T", "mu"), [(300.0, -0.25), (900.0, -0.95)])
@pytest.mark.parametrize(("mass", "local"), [(None, True), (20.0, False)])
def test_grand_canonical(mass, local, T, mu):
    """ln pi = N ln z - E / kT for atoms without names; one is put anywhere in V, or one of N is taken.

    Boltzmann's constant of ASE is that of 2014, so that mu / kT is known to one part in a million.
    """
    atoms = alloy(local, "Ar2Cu2")
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_initial_magnetic_moments(np.zeros(4))
    mc = MetropolisMC(atoms, T, Exchange("Ar", mu, mass), seed=0)
    assert log_z(mu, mass or ARGON, T) == pytest.approx(
        mu * beta(T) - 3.0 * math.log(thermal_wavelength(mass or ARGON, T)), abs=1e-5
    )

    def log_weight(a):
        n = int((a.numbers == 18).sum())
        return n * (mu * beta(T) - 3.0 * math.log(thermal_wavelength(mass or ARGON, T))) - beta(T) * total(a)

    def log_proposal(before, after):
        free = [int((a.numbers == 18).sum()) - 1 for a in (before, after)]
        volume = before.get_volume()
        return math.log(volume / free[1]) if free[1] > free[0] else math.log(free[0] / volume)

    Verdicts(mc, log_weight, log_proposal).run(300)


def test_the_temperature_that_was_set_is_that_of_the_next_decision():
    mc = MetropolisMC(alloy(), 300.0, [Displacement(0.5), SpeciesSwap(), Transmutation(MU)], seed=0)
    verdicts = Verdicts(mc, lambda a: -beta(mc.temperature_K) * (total(a) - sum(MU[symbol] for symbol in a.symbols)))
    for T in (150.0, 600.0, 2400.0):
        mc.temperature_K = T
        verdicts.run(100, each=10)


def test_every_spin_of_a_sublattice_decides_for_itself():
    """In a lattice of one colour after the other: each flips exactly where ln u <= -dE / kT."""
    atoms = lattice(4)
    atoms.calc = Ising(4, field=0.2)
    mc = MetropolisMC(atoms, 2.0 / units.kB, Sublattice(SpinFlip()), seed=0)
    neighbors, seen = atoms.calc.neighbors, {True: 0, False: 0}

    def decide(n):
        now = atoms.arrays["initial_magmoms"]
        flipped = np.flatnonzero(now != before)
        assert len(flipped) == n
        log_a = -2.0 * before[flipped] * (before[neighbors[flipped]].sum(1) + 0.2) / 2.0
        accept = np.arange(n) % 2 == mc.nsteps % 2
        expected[flipped] *= np.where((log_a > 0) | accept, -1, 1)
        for side in (True, False):
            seen[side] += int(((log_a < 0) & (accept == side)).sum())
        return np.where(log_a > 0, 0.0, -log_a + np.where(accept, EDGE, -EDGE))

    mc.context.rng = Dice(decide)
    for _ in range(100):
        before = atoms.get_initial_magnetic_moments()
        expected = before.copy()
        mc.run(1)
        np.testing.assert_array_equal(atoms.get_initial_magnetic_moments(), expected)
    assert min(seen.values()) > 50


def tempering_of(make, temperatures):
    replicas = [make(T) for T in temperatures]
    return replicas, ParallelTempering(replicas, exchange_interval=1, seed=0)


def volume_moves(T):
    return MetropolisMC(alloy(), T, VolumeChange(2e-8 * T**2, step=0.3), seed=int(T))


def transmutations(T):
    return MetropolisMC(alloy(), T, Transmutation({"Cu": 0.0, "Ni": 3e-7 * T**2, "Au": -0.02}), seed=int(T))


def exchanges(T):
    atoms = alloy(symbols="Ar3")
    atoms.set_initial_magnetic_moments(np.zeros(3))
    return MetropolisMC(atoms, T, Exchange("Ar", -0.25 - 2e-4 * T), seed=int(T))


TEMPERED = {
    "canonical": (
        lambda T: MetropolisMC(alloy(), T, [Displacement(0.5), SpeciesSwap()], seed=int(T)),
        lambda a, T: -beta(T) * total(a),
    ),
    "pressure": (
        volume_moves,
        lambda a, T: -beta(T) * (total(a) + 2e-8 * T**2 * a.get_volume()),
    ),
    "semi-grand": (
        transmutations,
        lambda a, T: -beta(T) * (total(a) - 3e-7 * T**2 * (a.numbers == 28).sum() + 0.02 * (a.numbers == 79).sum()),
    ),
    "grand": (
        exchanges,
        lambda a, T: (
            len(a) * ((-0.25 - 2e-4 * T) * beta(T) - 3.0 * math.log(thermal_wavelength(ARGON, T))) - beta(T) * total(a)
        ),
    ),
}


@pytest.mark.parametrize("name", TEMPERED)
def test_replica_exchange(name):
    """ln a = ln w_i(x_j) + ln w_j(x_i) - ln w_i(x_i) - ln w_j(x_j), also where pressures and potentials differ."""
    make, log_weight = TEMPERED[name]
    temperatures = [250.0, 300.0, 390.0]
    replicas, tempering = tempering_of(make, temperatures)
    decided, seen = [], {True: 0, False: 0}

    def decide(size):
        assert size is None
        k = pairs[len(decided)]
        (a, b), (T, U) = (replica.atoms for replica in replicas[k : k + 2]), temperatures[k : k + 2]
        terms = [log_weight(b, T), log_weight(a, U), -log_weight(a, T), -log_weight(b, U)]
        log_a, edge = sum(terms), EDGE * max(1.0, *map(abs, terms))
        accept = len(decided) % 2 == tempering.nsteps % 4 // 2
        seen[accept] += log_a < -edge
        decided.append(True if log_a > -edge else accept)
        return 10 * edge if log_a > -edge else -log_a + (edge if accept else -edge)

    tempering.rng = Dice(decide)
    for step in range(80):
        pairs, expected = list(range(step % 2, 2, 2)), list(tempering.walkers)
        decided.clear()
        tempering.run(1)
        for k, accept in zip(pairs, decided, strict=True):
            if accept:
                expected[k], expected[k + 1] = expected[k + 1], expected[k]
        assert tempering.walkers == expected
        for replica in replicas:
            assert replica.energy == pytest.approx(total(replica.atoms), abs=1e-10)
    assert min(seen.values()) >= 8


def test_the_criterion_as_a_probability():
    """a = exp(0.3 - 1): 400,000 decisions tell an error of 1 % in kT with 99.9 % probability, one by one and at once.

    The share accepted has the standard error sqrt(a (1 - a) / n) = 0.0008, of which three are allowed; 1 % in kT
    changes it by 0.0050, which is three more.
    """
    n, kT, allowed = 400_000, 0.025, 3.0
    a = math.exp(0.3 - 1.0)
    error = math.sqrt(a * (1.0 - a) / n)
    assert allowed + 3.09 <= a * 1.0 * 0.01 / error
    rng = np.random.default_rng(7)
    many = accepted_each(0.3, np.full(n, kT), kT, rng)
    one = [accepted(0.3, kT, kT, rng) for _ in range(n)]
    for share in (many.mean(), np.mean(one)):
        assert abs(share - a) < allowed * error
