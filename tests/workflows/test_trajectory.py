"""Averages over trajectories: ideal gases, random walks and springs, whose averages are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from small_models import small_calculator

from ase_andersonn.workflows.md import molecular_dynamics
from ase_andersonn.workflows.trajectory import (
    diffusion,
    heat_capacity,
    mean_values,
    radial_distribution,
    vibrations,
)


def frame(
    positions: Any, symbols: str = "Ar", velocities: Any = None, time: float | None = None, **known: Any
) -> Atoms:
    n = len(positions)
    atoms = Atoms(symbols if len(symbols) > 2 else [symbols] * n, positions=positions, cell=[10.0] * 3, pbc=True)
    if velocities is not None:
        atoms.set_velocities(velocities)
    if time is not None:
        atoms.info["time"] = time
    if known:
        atoms.calc = SinglePointCalculator(atoms, **known)
    return atoms


def test_pairs_of_an_ideal_gas_are_independent(tmp_path: Path) -> None:
    """g = (N − 1)/N everywhere; an error bar is exceeded as often as it should be, and g is known to 1 %."""
    rng = np.random.default_rng(0)
    frames = [frame(10 * rng.random((40, 3))) for _ in range(120)]
    found = radial_distribution(frames, r_max=6.0, bins=20)
    off = (found.g[6:] - 39 / 40) / found.error[6:]
    assert abs(off).max() < 4
    assert (off**2).mean() < 2.5
    assert found.error[10:].max() < 0.02
    assert found.coordination[-1] == pytest.approx(39 / 1000 * 4 / 3 * np.pi * 6**3, rel=0.02)
    found.plot(tmp_path / "g.png")
    json.dumps(found.to_dict(), allow_nan=False)


def test_shells_of_crystals() -> None:
    copper = bulk("Cu", a=3.6)
    found = radial_distribution([copper, copper], r_max=4.0, bins=80)
    assert found.coordination[[int(2.4 / 0.05), int(3.0 / 0.05), -1]] == pytest.approx([0, 12, 18])
    salt = bulk("NaCl", "rocksalt", a=5.6)
    for pair, shells in ((("Na", "Cl"), (6, 6)), (("Na", "Na"), (0, 12)), (("Cl", "Na"), (6, 6))):
        found = radial_distribution([salt, salt], r_max=4.5, bins=90, pair=pair)
        assert found.coordination[[int(3.4 / 0.05), int(4.2 / 0.05)]] == pytest.approx(shells)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_random_walk_diffuses(wrapped: bool, tmp_path: Path) -> None:
    """D = σ² / 2 dt, whatever the drift of the whole; known to 3 %."""
    rng = np.random.default_rng(1)
    steps = 0.3 * rng.standard_normal((1000, 60, 3))
    steps -= steps.mean(1, keepdims=True)
    walk = 10 * rng.random((60, 3)) + np.cumsum(steps, 0) + np.linspace(0, 30, 1000)[:, None, None]
    frames = [frame(positions, time=10.0 * k) for k, positions in enumerate(walk)]
    if wrapped:
        for atoms in frames:
            atoms.wrap()
    found = diffusion(frames, lag=200.0)
    expected = 0.1 * 0.3**2 * 59 / 60 / 20
    assert found.coefficient.error < 0.03 * expected
    assert abs(found.coefficient.mean - expected) < 4 * found.coefficient.error
    np.testing.assert_allclose(found.msd, 60 * expected * found.times, atol=4 * found.error.max())
    assert found.times[-1] == 200.0
    assert found.msd[0] == 0.0
    found.plot(tmp_path / "msd.png")


def test_springs_have_one_frequency(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    phases, step, f = 2 * np.pi * rng.random((1, 30, 3)), 5.0, 8e-3
    t = step * np.arange(800)[:, None, None]
    x = np.cos(2 * np.pi * f * t + phases)
    v = -2 * np.pi * f * np.sin(2 * np.pi * f * t + phases) / units.fs
    frames = [frame(x[k], velocities=v[k] * 0.1) for k in range(800)]
    found = vibrations(frames, spacing=step)
    assert found.frequencies[found.spectrum.argmax()] == pytest.approx(8.0, abs=0.3)
    assert np.trapezoid(found.spectrum, found.frequencies) == pytest.approx(1.0, abs=0.01)
    assert found.autocorrelation[0] == pytest.approx(1.0)
    np.testing.assert_allclose(found.autocorrelation, np.cos(2 * np.pi * f * found.times), atol=0.15)
    found.plot(tmp_path / "spectrum.png")


def test_springs_have_the_heat_capacity_of_dulong_and_petit() -> None:
    """U of n motions is kT Γ(n/2): C = 3 k an atom, known to 3 %; the enthalpy of one fluctuates likewise."""
    rng, temperature, n = np.random.default_rng(3), 500.0, 20
    kT = units.kB * temperature
    energies = kT * rng.gamma(1.5 * n, size=4000)
    frames = [frame(np.zeros((n, 3)), energy=energy) for energy in energies]
    found = heat_capacity(frames, temperature=temperature)
    assert found.per_atom.error < 0.05
    assert abs(found.per_atom.mean - 3.0) < 4 * found.per_atom.error
    assert found.molar.mean == pytest.approx(found.per_atom.mean * 8.31446, rel=1e-4)
    assert found.total.mean == pytest.approx(found.per_atom.mean * n * units.kB)
    for atoms, energy in zip(frames, kT * rng.gamma(1.5 * n, size=4000), strict=True):
        volume = 1000 + energy / 0.01
        atoms.set_cell([volume ** (1 / 3)] * 3)
    both = heat_capacity(frames, temperature=temperature, ensemble="npt", pressure=0.01)
    assert abs(both.per_atom.mean - 4.5) < 4 * both.per_atom.error


def test_means_of_a_gas() -> None:
    rng, n = np.random.default_rng(4), 50
    width = np.sqrt(units.kB * 300.0 / 39.948)
    frames = []
    for energy in rng.normal(-3.0, 0.1, 400):
        v = width * rng.standard_normal((n, 3))
        stress = np.array([-1.0, -1, -1, 0, 0, 0]) * 0.002
        frames.append(frame(np.zeros((n, 3)), velocities=v - v.mean(0), energy=energy, stress=stress))
    found = mean_values(frames)
    assert abs(found.energy.mean + 3.0) < 4 * found.energy.error
    assert found.energy.error == pytest.approx(0.1 / 20, rel=0.2)
    assert abs(found.temperature.mean - 300.0) < 4 * found.temperature.error
    assert found.density is not None
    assert found.density.mean == pytest.approx(50 * 39.948 * 1.66053907e-24 / 1e-21)
    assert found.pressure is not None
    expected = (0.002 + n * units.kB * 300.0 / 1000) / units.GPa
    assert abs(found.pressure.mean - expected) < 4 * found.pressure.error + 1e-12


@pytest.mark.parametrize("name", ["EMT", "LennardJones", "AndersoNN"])
def test_trajectories_of_molecular_dynamics(name: str, tmp_path: Path) -> None:
    structure, calc = {
        "EMT": (bulk("Cu", cubic=True), EMT()),
        "LennardJones": (bulk("Ar", cubic=True, a=5.3), LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0)),
        "AndersoNN": (bulk("Si"), small_calculator()),
    }[name]
    path = tmp_path / "x.traj"
    molecular_dynamics(
        structure, calc, ensemble="bussi", temperature=50.0, timestep=2.0, steps=24, every=2, seed=1, trajectory=path
    )
    waves = vibrations(path)
    assert waves.times[1] == 4.0
    assert waves.autocorrelation[0] == pytest.approx(1.0, abs=0.5)
    assert diffusion(path, skip=1).msd[0] == 0.0
    assert radial_distribution(path, r_max=5.0).coordination[-1] > 3
    assert mean_values(path).pressure is not None
    assert heat_capacity(path, temperature=50.0).per_atom.mean > 1.5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda good: radial_distribution("nowhere.traj"), "no file nowhere.traj"),
        (lambda good: radial_distribution(good[0]), "a path or a list of Atoms"),
        (lambda good: radial_distribution(good[:1]), "1 frames without the first 0 are no trajectory"),
        (lambda good: radial_distribution(good, skip=9), "without the first 9"),
        (lambda good: radial_distribution(good, r_max=0.0), "r_max is 0.0"),
        (lambda good: radial_distribution(good, pair=("Ar", "Kr")), "there is no 'Kr'"),
        (lambda good: radial_distribution([good[0], bulk("Cu")]), "frame 1 holds other atoms"),
        (lambda good: diffusion(good), "give their spacing"),
        (lambda good: diffusion(good, spacing=-1.0), "spacing is -1.0"),
        (lambda good: diffusion(good, spacing=1.0, lag=50.0), "longest lag"),
        (lambda good: vibrations(good, spacing=1.0), "no velocities"),
        (lambda good: mean_values(good), "no velocities"),
        (lambda good: heat_capacity(good, temperature=300.0), "frame 0 has no energy"),
        (lambda good: heat_capacity(good, temperature=0.0), "temperature is 0.0"),
        (lambda good: diffusion([frame([[0, 0, 0]], time=t) for t in (0.0, 1.0, 3.0)]), "not equally spaced"),
    ],
)
def test_wrong_input_is_reported(call: Any, text: str) -> None:
    good = [frame(np.random.default_rng(k).random((3, 3))) for k in range(8)]
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=text):
        call(good)


def test_files_that_are_no_trajectories(tmp_path: Path) -> None:
    (tmp_path / "x.traj").write_text("junk")
    with pytest.raises(ValueError, match="cannot be read as a trajectory"):
        diffusion(tmp_path / "x.traj")
