"""The calculator in ASE's hands: trajectories, optimisers, filters, dynamics, vibrations, bands, data bases."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.vibrations import Vibrations
from laws import results, same
from small_models import ethanol, rattled, silicon, skewed, slab, small_model, stiff_model

from ase_andersonn import AndersoNN
from ase_andersonn.engine import evaluator as direct_evaluator
from ase_andersonn.pretrained.catalog import packaged_models


def make(**options: Any) -> AndersoNN:
    return AndersoNN(small_model(), **{"dtype": "float64", "tol": 1e-12, "compile": False, **options})


def trajectory(atoms: Atoms, n: int = 8) -> Iterator[Atoms]:
    """Small steps, atoms wrapped back into the cell at some of them."""
    rng = np.random.default_rng(0)
    velocities = 0.03 * rng.normal(size=(len(atoms), 3))
    for step in range(n):
        atoms.positions += velocities + 0.003 * rng.normal(size=velocities.shape)
        if step % 3 == 2:
            atoms.wrap()
        yield atoms


# Warm starts


@pytest.mark.parametrize("structure", [silicon, skewed, slab, ethanol])
@pytest.mark.parametrize("tol", [1e-4, 1e-6, 1e-12])
@pytest.mark.parametrize("fused", [False, True], ids=["solved", "at once"])
def test_warm_starts_give_what_cold_starts_give(
    structure: Any, tol: float, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(direct_evaluator, "FUSED_MAX_ATOMS", 0)
    warm, cold, exact = (make(tol=t, warm_start=w) for t, w in ((tol, True), (tol, False), (1e-20, False)))
    evaluations = {"warm": 0, "cold": 0}
    for atoms in trajectory(structure()):
        expected = results(exact, atoms)
        scale = max(1.0, float(np.abs(expected["forces"]).max()))
        for name, calc in (("warm", warm), ("cold", cold)):
            given = results(calc, atoms)
            assert abs(given["energy"] - expected["energy"]) / len(atoms) <= tol
            assert np.abs(given["forces"] - expected["forces"]).max() <= 3 * math.sqrt(tol) * scale
            evaluations[name] += sum(calc.diagnostics["evaluations"].values())
    if not fused:
        assert evaluations["warm"] < evaluations["cold"]


def test_cold_starts_are_repeatable_bit_for_bit() -> None:
    """Whatever was computed before, with another neighbour list and in another place of the cell."""
    calc, atoms = make(warm_start=False, tol=1e-6), silicon() * 2
    frames = [atoms.copy() for atoms in trajectory(atoms)]
    alone = [results(make(warm_start=False, tol=1e-6), frame) for frame in frames]
    for order in (range(len(frames)), reversed(range(len(frames)))):
        for k in order:
            given = results(calc, frames[k])
            for name, value in alone[k].items():
                assert np.array_equal(given[name], value), (k, name)


def test_cold_starts_do_not_remember_what_was_not_found_at_once() -> None:
    options = {"warm_start": False, "tol": 1e-10}
    calc, alone = make(**options), make(**options)
    fused = results(alone, silicon())
    cost = alone.diagnostics["evaluations"]
    results(calc, skewed())
    assert calc.diagnostics["evaluations"] != cost  # not found at once
    given = results(calc, silicon())
    assert calc.diagnostics["evaluations"] == cost
    for name, value in fused.items():
        assert np.array_equal(given[name], value), name


def test_wrapping_atoms_between_steps_keeps_list_and_history() -> None:
    calc, atoms = make(), silicon() * 2
    atoms.positions += 0.01
    calc.get_forces(atoms)
    calc.get_forces(rattled(atoms, 0.005, seed=1))
    warm = calc.diagnostics["evaluations"]["cell"]
    before = results(calc, atoms)
    atoms.positions += 2 * atoms.cell.array[0] - atoms.cell.array[2]
    atoms.positions[3] += atoms.cell.array[1]
    same(results(calc, atoms), before)
    assert calc.diagnostics["rebuilds"] == 1
    assert calc.diagnostics["evaluations"]["cell"] <= warm


def test_history_is_dropped_where_structures_are_far_apart() -> None:
    calc, cold = make(tol=1e-6), make(tol=1e-6, warm_start=False)
    for atoms in (silicon(), ethanol(), silicon()[[1, 0, 2, 3, 4, 5, 6, 7]], rattled(silicon(), 1.0), slab()):
        given, expected = results(calc, atoms), results(cold, atoms)
        assert given["energy"] == pytest.approx(expected["energy"], abs=1e-12)


def test_a_warm_start_saves_applications_of_the_cell() -> None:
    calc = AndersoNN(stiff_model(), dtype="float64", compile=False)
    counts = []
    for atoms in trajectory(silicon(), 12):
        calc.get_forces(atoms)
        counts.append(sum(calc.diagnostics["evaluations"].values()))
    assert np.mean(counts[-4:]) < 0.7 * counts[0]


def test_a_history_unlike_the_new_geometry_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms that move far in a step: cold starts, whose remainders do not lag behind the motion."""
    monkeypatch.setattr(direct_evaluator, "FUSED_MAX_ATOMS", 0)
    calc, cold = make(tol=1e-8), make(tol=1e-8, warm_start=False)
    for seed in range(8):
        atoms = rattled(ethanol(), 0.1, seed=seed)
        np.testing.assert_allclose(calc.get_forces(atoms), cold.get_forces(atoms), rtol=0, atol=1e-12)
        assert calc.diagnostics["evaluations"] == cold.diagnostics["evaluations"]


# ASE's tools


def test_sum_of_calculators() -> None:
    atoms, both = silicon(), SumCalculator([make(), make()])
    one = results(make(), atoms)
    given = {name: both.get_property(name, atoms) for name in ("energy", "forces", "stress")}
    same(given, {name: 2 * one[name] for name in given})


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation(optimizer: Any, tmp_path: Path) -> None:
    atoms = rattled(bulk("Si", cubic=True), 0.1)
    atoms.calc = AndersoNN(small_model(1), dtype="float64", tol=1e-12, compile=False)  # of a smooth valley
    start = atoms.get_potential_energy()
    with optimizer(atoms, logfile=None, trajectory=str(tmp_path / "run.traj")) as run:
        assert run.run(fmax=0.02, steps=300)
    assert atoms.get_potential_energy() < start
    frames = read(tmp_path / "run.traj", ":")
    assert frames[-1].get_potential_energy() == atoms.get_potential_energy()
    assert np.array_equal(frames[-1].get_forces(), atoms.get_forces())


def test_relaxation_of_the_cell() -> None:
    atoms = Atoms("Si2", scaled_positions=[[0, 0, 0], [0.27, 0.24, 0.25]], cell=2.7 * (1 - np.eye(3)), pbc=True)
    atoms.calc = make()
    before = atoms.get_potential_energy()
    with BFGS(FrechetCellFilter(atoms), logfile=None) as run:
        run.run(fmax=0.01, steps=40)
    assert atoms.get_potential_energy() < before
    same(results(atoms.calc, atoms), results(make(warm_start=False), atoms), tol=1e-5)


def moving(atoms: Atoms, temperature: float, calc: AndersoNN) -> Atoms:
    atoms.calc = calc
    momenta = np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses())[:, None]
    atoms.set_momenta((momenta - momenta.mean(0)) * (units.kB * temperature) ** 0.5)
    return atoms


@pytest.mark.parametrize("tol", [1e-4, 1e-6])
def test_dynamics_keeps_the_energy(tol: float) -> None:
    """Velocity Verlet from warm starts: drift and noise no larger than with cold starts to full precision."""
    spreads = {}
    for warm in (True, False):
        calc = make(tol=tol) if warm else make(tol=1e-16, warm_start=False)
        atoms = moving(rattled(bulk("Si", cubic=True), 0.05), 600.0, calc)
        energies = []
        with VelocityVerlet(atoms, 1.0 * units.fs) as run:
            for _ in range(60):
                run.run(2)
                energies.append(atoms.get_total_energy() / len(atoms))
        spreads[warm] = np.ptp(energies)
    assert spreads[True] <= 1.5 * spreads[False] + 2e-6


def test_dynamics_with_a_thermostat_and_constraints(tmp_path: Path) -> None:
    atoms = moving(slab(), 300.0, make(tol=1e-6))
    atoms.set_constraint(FixAtoms([0, 1]))
    fixed = atoms.positions[:2].copy()
    path = tmp_path / "md.traj"
    settings: dict[str, Any] = {"temperature_K": 300.0, "friction": 0.01, "fixcm": False}
    run = Langevin(atoms, units.fs, rng=np.random.default_rng(0), **settings)
    with run, Trajectory(path, "w", atoms) as writer:
        run.attach(writer.write, interval=5)
        run.run(15)
    assert np.array_equal(atoms.positions[:2], fixed)
    frames = read(path, ":")
    assert len(frames) == 4
    for frame in frames:
        expected = make(warm_start=False).get_potential_energy(frame)
        assert abs(frame.get_potential_energy() - expected) <= 1e-6 * len(frame)


def test_vibrations(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    atoms.calc = make()
    with BFGS(atoms, logfile=None) as run:
        run.run(fmax=1e-4, steps=200)
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.002)
    vibrations.run()
    hessian = vibrations.get_vibrations().get_hessian_2d()
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-3)
    energies = np.sort(np.abs(vibrations.get_energies()))
    assert energies[:3].max() < 2e-3


@pytest.mark.parametrize("shared", [True, False])
def test_nudged_elastic_band(shared: bool) -> None:
    first = rattled(bulk("Si", cubic=True), 0.02)
    last = first.copy()
    last.positions[0] += [0.4, 0.3, 0.0]
    images = [first, *(first.copy() for _ in range(3)), last]
    one = make()
    for image in images:
        image.calc = one if shared else make()
    band = NEB(images, allow_shared_calculator=shared, method="improvedtangent")
    band.interpolate()
    with FIRE(band, logfile=None) as run:
        run.run(fmax=0.05, steps=6)
    energies = [image.get_potential_energy() for image in images]
    for image, energy in zip(images, energies, strict=True):
        assert energy == pytest.approx(make(warm_start=False).get_potential_energy(image), abs=1e-9)


def test_data_base(tmp_path: Path) -> None:
    atoms = silicon()
    atoms.calc = make()
    forces = atoms.get_forces()
    with connect(tmp_path / "test.db") as base:
        key = base.write(atoms)
        row = base.get(key)
    assert row.calculator == "andersonn"
    assert row.energy == atoms.get_potential_energy()
    assert np.array_equal(row.forces, forces)
    assert row.calculator_parameters["model"] == "custom"
    assert row.calculator_parameters["tol"] == 1e-12


def test_charges_and_moments_do_not_matter() -> None:
    calc, atoms = make(), silicon()
    atoms.calc = calc
    atoms.get_forces()
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    atoms.set_initial_charges(np.ones(len(atoms)))
    assert not calc.calculation_required(atoms, ["energy", "forces"])


# The packaged model


@pytest.mark.skipif(not packaged_models(), reason="no model is packaged")
def test_the_default_model_runs() -> None:
    """Silicon is close to its lattice constant, and its energy is kept by dynamics at default settings."""
    atoms = moving(bulk("Si", cubic=True), 300.0, AndersoNN("mlearn-pbe", compile=False))
    assert np.abs(atoms.get_forces()).max() < 0.05
    assert np.abs(atoms.get_stress()).max() < 0.02
    energies = []
    with VelocityVerlet(atoms, 1.0 * units.fs) as run:
        for _ in range(25):
            run.run(2)
            energies.append(atoms.get_total_energy() / len(atoms))
    assert np.ptp(energies) < 5e-4
    assert torch.get_default_dtype() == torch.float32
