"""Molecular dynamics: the laws of its ensembles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from md_structures import copper
from springs import Springs

from ase_andersonn.mc import estimate
from ase_andersonn.workflows import _md_limits
from ase_andersonn.workflows.md import molecular_dynamics


def test_constant_energy_is_conserved_to_second_order() -> None:
    """Fluctuations of the total energy go with the square of the time step."""
    widths = []
    for timestep in (2.0, 4.0):
        run = molecular_dynamics(
            copper(), EMT(), temperature=600.0, timestep=timestep, steps=int(480 / timestep), seed=1, every=1
        )
        widths.append(np.ptp(run.total_energies) / 4)
        assert abs(run.drift) < 2e-4  # of a kinetic energy of 0.04 eV/atom
    assert widths[1] < 2e-3
    assert widths[1] / widths[0] == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("ensemble", ["langevin", "bussi"])
def test_thermostats_give_the_canonical_distribution(ensemble: Any) -> None:
    """Means and variances of kinetic and potential energy, that is to say of χ² of n motions.

    Errors of the means are below 2 %, those of the variances below 11 %: a motion of 21 too much or too few (5 %) is
    found in the mean with a probability of 95 %, and a thermostat that rescales to a constant in the variance for sure.
    """
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    run = molecular_dynamics(
        atoms, Springs(atoms), ensemble=ensemble, temperature=300.0, timestep=4.0, steps=8000, every=2, seed=2,
        friction=0.02, thermostat_time=40.0, equilibration=500,
    )  # fmt: skip
    kT, n = units.kB * 300.0, 24 - 3 * (ensemble == "bussi")
    for energies, motions in ((run.total_energies - run.potential_energies, n), (run.potential_energies, 21)):
        x = energies[250:] / (0.5 * motions * kT)
        mean, variance = estimate(x), estimate((x - 1.0) ** 2 * motions / 2)
        assert mean.error < 0.02
        assert variance.error < 0.11
        assert abs(mean.mean - 1.0) < 4 * mean.error
        assert abs(variance.mean - 1.0) < 4 * variance.error
    assert run.temperature.mean == pytest.approx(300.0, rel=0.04)


def test_the_barostat_gives_the_volumes_of_its_ensemble(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ideal gas in an elastic box: V^N exp(−(U + p V)/kT), by quadrature.

    The error of the mean volume is below 1 %: N − 1 or N + 1 in the place of N (2 %) is found with a probability of
    90 %, the pressure left out (8 %) for sure.
    """
    monkeypatch.setattr(_md_limits, "_too_close", lambda _: None)  # atoms of an ideal gas do meet
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    temperature, pressure, modulus = 900.0, 1e-3, 0.02
    run = molecular_dynamics(
        atoms, Springs(atoms, 0.0, modulus), ensemble="npt", temperature=temperature, pressure=pressure, timestep=5.0,
        steps=12_000, every=1, seed=3, friction=0.02, barostat_time=150.0,
    )  # fmt: skip
    kT, v0 = units.kB * temperature, atoms.get_volume()
    v = np.linspace(0.05, 6, 20_000) * v0
    log_weight = len(atoms) * np.log(v / v0) - (0.5 * modulus * v0 * (v / v0 - 1) ** 2 + pressure * v) / kT
    weight = np.exp(log_weight - log_weight.max())
    mean, square = ((weight * x).sum() / weight.sum() for x in (v, v**2))
    found, spread = estimate(run.volumes[500:]), estimate((run.volumes[500:] - mean) ** 2)
    assert found.error < 0.01 * mean
    assert abs(found.mean - mean) < 4 * found.error
    assert abs(spread.mean - (square - mean**2)) < 4 * spread.error
    assert abs(run.temperature.mean - temperature) < 4 * run.temperature.error
    inside = estimate(run.pressures[500:])
    assert abs(inside.mean - pressure / units.GPa) < 4 * inside.error


def test_initial_velocities_have_no_momentum_and_molecules_do_not_turn() -> None:
    for atoms, motions in ((copper(), 9), (molecule("H2O"), 3), (molecule("CO"), 1)):
        calc = LennardJones(sigma=0.5, rc=3.0) if not atoms.pbc.any() else EMT()
        run = molecular_dynamics(atoms, calc, temperature=300.0, steps=0, seed=1)
        np.testing.assert_allclose(run.atoms.get_momenta().sum(0), 0.0, atol=1e-12)
        kinetic = run.total_energies[0] - run.potential_energies[0]
        assert run.temperatures[0] == pytest.approx(2 * kinetic / (motions * units.kB))
        if motions < 9:
            np.testing.assert_allclose(run.atoms.get_angular_momentum(), 0.0, atol=1e-9)
        assert not atoms.has("momenta")


def test_velocities_of_the_structure_are_kept() -> None:
    first = molecular_dynamics(copper(), EMT(), ensemble="langevin", temperature=300.0, steps=3, seed=1).atoms
    for options in ({}, {"ensemble": "bussi", "temperature": 900.0}):
        run = molecular_dynamics(first, EMT(), steps=0, **options)
        np.testing.assert_array_equal(run.atoms.get_momenta(), first.get_momenta())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ensemble": "nvt"}, "ensemble is 'nvt'; it is one of nve, langevin, bussi, npt"),
        ({"ensemble": "npt"}, "'npt' needs a temperature"),
        ({}, "no velocities"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": 300.0, "pressure": 0.1}, "changes nothing with 'nve'"),
        ({"temperature": 300.0, "timestep": 0.0}, "timestep is 0.0"),
        ({"temperature": 300.0, "steps": -1}, "steps is -1"),
        ({"temperature": 300.0, "every": 0}, "every is 0"),
        ({"temperature": 300.0, "seed": "x"}, "seed is 'x'"),
        ({"temperature": 300.0, "trajectory": "x.xyz"}, "x.xyz has an unknown ending"),
        ({"temperature": 300.0, "log": "nowhere/x.log"}, "no folder"),
        ({"temperature": 300.0, "log": "x.npz", "restart": "x.npz"}, "name different files"),
        ({"temperature": 300.0, "resume": True}, "resume needs the restart file"),
        ({"temperature": 300.0, "max_temperature": -3.0}, "max_temperature is -3.0"),
    ],
)
def test_wrong_input_is_refused_and_writes_nothing(
    options: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        molecular_dynamics(copper(), EMT(), **{"steps": 1, **options})
    assert list(tmp_path.iterdir()) == []


def test_structures_that_an_ensemble_does_not_hold() -> None:
    held = copper()
    held.set_constraint(FixAtoms([0]))
    for atoms, ensemble in ((molecule("H2O"), "npt"), (held, "npt"), (copper()[[0]], "nve")):
        with pytest.raises(ValueError, match=r"three directions|constraints|nothing moves"):
            molecular_dynamics(atoms, EMT(), ensemble=ensemble, temperature=300.0, steps=1)
    run = molecular_dynamics(held, EMT(), ensemble="langevin", temperature=300.0, steps=5, seed=1)
    np.testing.assert_array_equal(run.atoms.positions[0], held.positions[0])
