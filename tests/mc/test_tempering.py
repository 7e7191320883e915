"""Replica exchange leaves each replica's distribution as it is, and helps to leave a valley."""

import math

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms
from mc_systems import Energy, Ising, LocalEnergyOf, assert_mean, enumerate_ising, lattice

from ase_andersonn.mc import (
    Displacement,
    Exchange,
    MetropolisMC,
    ParallelTempering,
    SpinFlip,
    Transmutation,
    VolumeChange,
    thermal_wavelength,
)


def record(tempering, function):
    values = []
    tempering.attach(lambda: values.append([function(r) for r in tempering.replicas]) if tempering.nsteps else None)
    return values


def ising(kT, seed, **kwargs):
    atoms = lattice(4)
    atoms.calc = Ising(4)
    return MetropolisMC(atoms, kT / units.kB, SpinFlip(), seed=seed, moves_per_step=6, **kwargs)


def test_each_replica_keeps_its_distribution():
    temperatures = [2.0, 2.6, 3.5]
    replicas = [ising(kT, seed) for seed, kT in enumerate(temperatures)]
    mine = [replica.atoms for replica in replicas]
    tempering = ParallelTempering(replicas, exchange_interval=2, seed=1)
    tempering.run(50)
    values = record(tempering, lambda r: r.energy)
    tempering.run(900)
    for k, kT in enumerate(temperatures):
        energy, square, _ = enumerate_ising(4, kT)
        series = np.array(values)[:, k]
        assert_mean(series, energy, 0.3)
        assert_mean((series - energy) ** 2, square - energy**2, 0.8)
        assert replicas[k].atoms is mine[k]
        assert replicas[k].energy == pytest.approx(mine[k].get_potential_energy())
    assert all(0.2 < exchange.acceptance < 0.9 for exchange in tempering.exchanges)
    assert sorted(tempering.walkers) == [0, 1, 2]


def test_it_leaves_valleys_a_single_replica_stays_in():
    """Two wells of different depth behind a barrier of 20 kT: occupation exp(-depth / kT)."""
    depth = 0.03

    def wells(i, r, z, m):
        x = r[:, 0]
        return 0.5 * (x**2 - 1.0) ** 2 + depth * (x > 0) + 0.5 * (r[:, 1] ** 2 + r[:, 2] ** 2)

    def make(T, seed):
        atoms = Atoms("Ar", positions=[[1.0, 0.0, 0.0]])
        atoms.calc = LocalEnergyOf(wells)
        return MetropolisMC(atoms, T, Displacement(0.4), seed=seed)

    alone = make(290.0, 0)
    xs = []
    alone.attach(lambda: xs.append(alone.atoms.positions[0, 0]))
    alone.run(2000)
    assert min(xs) > 0
    temperatures = [290.0, 580.0, 1200.0, 2400.0]
    tempering = ParallelTempering([make(T, k) for k, T in enumerate(temperatures)], exchange_interval=5, seed=2)
    values = record(tempering, lambda r: r.atoms.positions[0, 0] > 0)
    tempering.run(1800)
    grid = np.linspace(-4, 4, 4001)
    weight = np.exp(-wells(0, np.stack([grid, 0 * grid, 0 * grid], 1), 0, 0) / (units.kB * 290.0))
    assert_mean(np.array(values, float)[:, 0], weight[grid > 0].sum() / weight.sum(), 2.5)


def test_replicas_at_constant_pressure_and_with_a_reservoir():
    """Ideal gases: <V> = (N + 1) kT / p and <N> = z(T) V at each temperature."""
    temperatures, pressure, mu, side = [270.0, 300.0, 330.0], 1e-3, -0.30, 8.0

    def npt(k, T):
        atoms = Atoms("Ar3", positions=np.eye(3), cell=[6.0] * 3, pbc=True, calculator=Energy(lambda a: 0.0))
        return MetropolisMC(atoms, T, VolumeChange(pressure, step=0.9), seed=k)

    tempering = ParallelTempering([npt(k, T) for k, T in enumerate(temperatures)], exchange_interval=2, seed=3)
    values = record(tempering, lambda r: r.atoms.get_volume())
    tempering.run(1000)
    for k, T in enumerate(temperatures):
        assert_mean(np.array(values)[:, k], 4 * units.kB * T / pressure, 0.2)

    def gcmc(k, T):
        atoms = Atoms("Ar", positions=[[0, 0, 0]], cell=[side] * 3, pbc=True, calculator=Energy(lambda a: 0.0))
        return MetropolisMC(atoms, T, Exchange("Ar", mu), seed=k)

    tempering = ParallelTempering([gcmc(k, T) for k, T in enumerate(temperatures)], exchange_interval=3, seed=4)
    values = record(tempering, lambda r: len(r.atoms))
    tempering.run(1000)
    for k, T in enumerate(temperatures):
        z = math.exp(mu / (units.kB * T)) / thermal_wavelength(39.948, T) ** 3
        assert_mean(np.array(values, float)[:, k], z * side**3, 0.6)
    assert all(exchange.accepted > 20 for exchange in tempering.exchanges)


def test_replicas_of_an_ideal_solution():
    mu = {"Cu": 0.0, "Ni": 0.03}
    replicas = []
    for k, T in enumerate([300.0, 600.0]):
        atoms = Atoms("Cu6", positions=3.0 * np.arange(18).reshape(6, 3), calculator=Energy(lambda a: 0.0))
        replicas.append(MetropolisMC(atoms, T, Transmutation(mu), seed=k))
    tempering = ParallelTempering(replicas, exchange_interval=5, seed=5)

    def count(replica):
        nickel = np.flatnonzero(replica.atoms.numbers == 28)
        assert sorted(replica.context.by_species().members.get(28, [])) == nickel.tolist()
        return len(nickel)

    values = record(tempering, count)
    tempering.run(1000)
    for k, replica in enumerate(replicas):
        x = 1.0 / (1.0 + math.exp(-0.03 / replica.context.kT))
        assert_mean(np.array(values, float)[:, k], 6 * x, 0.1)


def test_runs_in_parts_are_one_run_and_look_at_all_atoms_once():
    def end(parts):
        replicas = [ising(kT, k, check_interval=0) for k, kT in enumerate([2.0, 2.5])]
        tempering = ParallelTempering(replicas, exchange_interval=3, seed=7)
        for steps in parts:
            tempering.run(steps)
        assert tempering.exchanges[0].accepted
        return [(r.energy, r.atoms.get_initial_magnetic_moments().tolist()) for r in replicas]

    assert end([40]) == end([7, 13, 20])


def test_replicas_changed_between_runs_are_taken_as_they_are():
    replicas = [ising(kT, k, check_tolerance=1e-9) for k, kT in enumerate([2.0, 2.5])]
    tempering = ParallelTempering(replicas, exchange_interval=3, seed=7)
    tempering.run(20)
    replicas[1].atoms.set_initial_magnetic_moments(np.ones(16))
    tempering.run(0)
    for replica in replicas:
        assert replica.energy == pytest.approx(replica.atoms.calc.get_potential_energy(replica.atoms))
    tempering.run(20)
    for replica in replicas:
        replica.check_energy()


def test_a_restart_goes_on_bit_for_bit(tmp_path):
    def make(path, seed=7):
        replicas = [ising(kT, 10 * seed + k) for k, kT in enumerate([2.0, 2.5, 3.0])]
        return ParallelTempering(replicas, exchange_interval=3, seed=seed, restart=path, restart_interval=20)

    def state(tempering):
        return repr([tempering.walkers, tempering.exchanges, tempering.rng.bit_generator.state]) + repr(
            [(r.energy, r.nsteps, r.atoms.arrays["initial_magmoms"].tolist(), r.statistics) for r in tempering.replicas]
        )

    whole = make(tmp_path / "whole.npz")
    whole.run(60)
    make(tmp_path / "part.npz").run(33)
    second = make(tmp_path / "part.npz", seed=8)
    assert second.nsteps == 20
    second.run(40)
    assert state(second) == state(whole)
    with pytest.raises(ValueError, match="exchange_interval was 3 and is 4"):
        ParallelTempering(second.replicas, exchange_interval=4, restart=tmp_path / "part.npz")
    others = [ising(kT, 0) for kT in (2.0, 2.5, 3.5)]
    with pytest.raises(ValueError, match=r"\(replica 2\) belongs to a run with other settings: temperature_K"):
        ParallelTempering(others, exchange_interval=3, restart=tmp_path / "part.npz")
    assert all((replica.atoms.get_initial_magnetic_moments() == 1).all() for replica in others)
    others = [ising(kT, 0) for kT in (2.0, 2.5, 3.0)]
    others[2].atoms.calc.coupling *= 2.0
    with pytest.raises(RuntimeError, match="full evaluation"):
        ParallelTempering(others, exchange_interval=3, restart=tmp_path / "part.npz")
    assert all((replica.atoms.get_initial_magnetic_moments() == 1).all() for replica in others)
    assert all(replica.nsteps == 0 for replica in others)


def test_the_log_has_a_column_for_each_replica(tmp_path):
    replicas = [ising(kT, k) for k, kT in enumerate([2.0, 3.0])]
    ParallelTempering(replicas, logfile=tmp_path / "log", seed=1).run(3)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 5
    assert {len(line.split()) for line in lines[1:]} == {4}


def one(T=300.0, moves=None, symbols="CuNi", calc=None, **kwargs):
    n = len(Atoms(symbols))
    atoms = Atoms(symbols, positions=np.eye(3)[:n], cell=[5.0] * 3, pbc=True, magmoms=[1.0] * n)
    atoms.set_constraint(kwargs.pop("constraint", None))
    atoms.calc = Energy(lambda a: 0.0) if calc is None else calc
    return MetropolisMC(atoms, T, moves or [Displacement(0.1)], **kwargs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [one()], "at least two"),
        (lambda: [one(), one(moves=SpinFlip())], "different kinds of moves"),
        (lambda: [one(), one(symbols="CuNi2")], "different numbers of atoms"),
        (lambda: [one(), one(symbols="Cu2")], "different compositions"),
        (lambda: [one(), one(constraint=FixAtoms([0]))], "different constraints"),
        (lambda: [one(), one(calc=LocalEnergyOf(lambda i, r, z, m: 0.0 * z))], "some replicas use local"),
    ],
)
def test_replicas_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        ParallelTempering(make())


def test_shared_atoms_calculators_and_files_are_refused(tmp_path):
    first = one()
    second = MetropolisMC(first.atoms, 400.0, Displacement(0.1))
    with pytest.raises(ValueError, match="share one Atoms"):
        ParallelTempering([first, second])
    calc = LocalEnergyOf(lambda i, r, z, m: 0.0 * z)
    with pytest.raises(ValueError, match="share one calculator"):
        ParallelTempering([one(calc=calc), one(calc=calc)])
    with pytest.raises(ValueError, match="give restart to ParallelTempering"):
        ParallelTempering([one(), one(restart=tmp_path / "a.npz")])
    with pytest.raises(ValueError, match="both are 1 or more"):
        ParallelTempering([one(), one()], exchange_interval=0)
