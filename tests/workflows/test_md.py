"""Molecular dynamics: the laws of its ensembles, exact restarts, and reasons to stop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.io import read
from small_models import small_calculator
from springs import Springs
from tight import needs_default_model

from ase_andersonn import AndersoNN
from ase_andersonn.mc import estimate
from ase_andersonn.workflows import _md_limits, _md_run
from ase_andersonn.workflows.md import molecular_dynamics
from ase_andersonn.workflows.monte_carlo import monte_carlo

ENSEMBLES = ("nve", "langevin", "bussi", "npt")


def copper(rattle: float = 0.02) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(rattle, seed=1)
    return atoms


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


def calculators() -> dict[str, tuple[Any, Atoms]]:
    argon = bulk("Ar", cubic=True, a=5.3)
    return {
        "EMT": (EMT, copper()),
        "LennardJones": (lambda: LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0), argon),
        "AndersoNN": (small_calculator, bulk("Si")),
    }


CASES = [("EMT", ensemble) for ensemble in ENSEMBLES]
CASES += [("LennardJones", "npt"), ("AndersoNN", "npt")]


@pytest.mark.parametrize(("name", "ensemble"), CASES)
def test_a_run_goes_on_bit_for_bit(name: str, ensemble: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_md_run, "FRESH_EVERY", 20)
    make, atoms = calculators()[name]
    options = {"ensemble": ensemble, "temperature": 200.0, "timestep": 1.0, "seed": 1, "every": 7}

    def run(stem: str, steps: int, **more: Any) -> Any:
        files = {"trajectory": f"{stem}.traj", "log": f"{stem}.log", "restart": f"{stem}.npz"}
        return molecular_dynamics(atoms, make(), steps=steps, **files, **options, **more)

    whole = run("a", 50)
    first = run("b", 40)
    again = run("b", 50, resume=True)
    assert (first.steps, again.steps, again.stopped_because) == (40, 50, None)
    for ours, theirs in ((again.atoms, whole.atoms), (read("b.traj"), read("a.traj"))):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        np.testing.assert_array_equal(ours.get_momenta(), theirs.get_momenta())
        np.testing.assert_array_equal(ours.cell.array, theirs.cell.array)
    np.testing.assert_array_equal(again.total_energies, whole.total_energies)
    assert again.atoms.get_potential_energy() == whole.atoms.get_potential_energy()
    np.testing.assert_array_equal(again.atoms.get_forces(), whole.atoms.get_forces())
    assert Path("a.log").read_text() == Path("b.log").read_text()
    assert len(read("a.traj", ":")) == len(read("b.traj", ":")) == len(whole.times) == 8
    assert run("b", 50, resume=True).atoms == again.atoms  # nothing left to do


KILLED = """
import os, signal, sys
from ase.calculators.emt import EMT
from ase.io import read
from ase_andersonn.workflows import _md_run, md

class Killed(EMT):
    calls = 0
    def calculate(self, *args, **kwargs):
        Killed.calls += 1
        if Killed.calls == 75:
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        super().calculate(*args, **kwargs)

_md_run.FRESH_EVERY, _md_run.SAVE_SECONDS = 20, 0.0
try:
    md.molecular_dynamics(read("start.traj"), Killed(), ensemble="bussi", temperature=300.0, steps=100, seed=1,
        every=3, trajectory="b.traj", log="b.log", restart="b.npz")
except KeyboardInterrupt as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_md_run, "FRESH_EVERY", 20)
    copper().write("start.traj")
    done = subprocess.run([sys.executable, "-c", KILLED, name], capture_output=True, text=True, check=False)
    if name == "SIGKILL":
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.stdout.startswith("interrupted after ")
        assert name in done.stdout
        assert "resume goes on from step 60" in done.stdout
    options = {"ensemble": "bussi", "temperature": 300.0, "steps": 100, "seed": 1, "every": 3}
    assert len(read("b.traj", ":")) > 21  # what was written after the state goes
    runs = [
        molecular_dynamics(
            read("start.traj"), EMT(), trajectory=f"{stem}.traj", log=f"{stem}.log", restart=f"{stem}.npz",
            resume=True, **options,
        )
        for stem in "ab"
    ]  # fmt: skip
    np.testing.assert_array_equal(runs[0].atoms.positions, runs[1].atoms.positions)
    assert Path("a.log").read_text() == Path("b.log").read_text()
    frames = [read(f"{stem}.traj", ":") for stem in "ab"]
    assert len(frames[0]) == len(frames[1]) == 34
    for ours, theirs in zip(*frames, strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        assert ours.info == theirs.info
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


def test_a_signal_ends_a_run_after_the_step(tmp_path: Path) -> None:
    class Interrupted(EMT):
        calls = 0

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            self.calls += 1
            if self.calls == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            super().calculate(*args, **kwargs)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="interrupted after") as raised:
        molecular_dynamics(copper(), Interrupted(), temperature=300.0, steps=50, seed=1, every=1)
    run = raised.value.result  # type: ignore[attr-defined]
    assert run.steps < 6
    assert run.stopped_because == f"after {run.steps} steps by SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
    json.dumps(run.to_dict(), allow_nan=False)
    run.plot(tmp_path / "md.png")


class _Nan(EMT):
    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.results["forces"] * np.nan


def test_explosions_have_reasons() -> None:
    def why(atoms: Atoms, calc: Any, **options: Any) -> str:
        run = molecular_dynamics(atoms, calc, steps=60, seed=1, every=1, **{"temperature": 300.0, **options})
        return str(run.stopped_because)

    assert "not finite" in why(copper(), _Nan())
    assert "the temperature was " in why(copper(0.2), EMT(), max_temperature=500.0)
    assert "after " in why(copper(0.2), EMT(), timestep=50.0)
    close = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.2]])
    assert "atoms 0 and 1 (H, H) were 0.20 Å apart" in why(close, LennardJones(sigma=0.05, rc=3.0))
    assert "volume had changed" in why(
        copper(), EMT(), ensemble="npt", pressure=-2.0, barostat_time=30.0, max_temperature=1e9
    )


class _Refuses(EMT):
    """As calculators that check their input."""

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        if np.abs(self.results["forces"]).max() > 100.0:
            raise ValueError("the forces are too large")


@pytest.mark.parametrize("calc", [EMT, _Refuses])
def test_an_explosion_names_step_and_time_step_and_leaves_whole_files(calc: Any, tmp_path: Path) -> None:
    files = {"trajectory": tmp_path / "a.traj", "log": tmp_path / "a.log"}
    run = molecular_dynamics(copper(), calc(), temperature=900.0, timestep=80.0, steps=60, seed=1, every=1, **files)
    text = str(run.stopped_because)
    assert text.startswith(f"after {run.steps} steps ")
    assert "the time step is 80 fs: try a smaller one, such as 20 fs" in text
    frames, lines = read(tmp_path / "a.traj", ":"), (tmp_path / "a.log").read_text().splitlines()
    assert len(frames) == len(lines) - 1 == len(run.times)
    assert all(np.isfinite(frame.positions).all() for frame in frames)
    assert "nan" not in "".join(lines)
    assert np.isfinite([run.temperature.mean, run.total_energy.mean, run.atoms.get_potential_energy()]).all()


def test_errors_that_are_no_explosion_are_raised() -> None:
    class Broken(EMT):
        calls = 0

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.calls += 1
            if self.calls == 4:
                raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        molecular_dynamics(copper(), Broken(), temperature=300.0, steps=10, seed=1)


def test_a_run_that_has_all_its_steps_says_so(tmp_path: Path) -> None:
    options = {"temperature": 300.0, "seed": 1, "restart": tmp_path / "a.npz"}
    molecular_dynamics(copper(), EMT(), steps=30, **options)
    for steps in (20, 30):
        with pytest.warns(UserWarning, match=f"has 30 steps already, and steps, of the whole run, is {steps}: nothing"):
            run = molecular_dynamics(copper(), EMT(), steps=steps, resume=True, **options)
        assert (run.steps, run.stopped_because) == (30, None)


def test_means_are_those_of_the_rows() -> None:
    run = molecular_dynamics(
        copper(), EMT(), ensemble="npt", temperature=300.0, steps=200, every=2, equilibration=100, seed=1
    )
    rows = run.times >= 100.0
    for mean, series in (
        (run.temperature, run.temperatures),
        (run.potential_energy, run.potential_energies),
        (run.total_energy, run.total_energies),
        (run.volume, run.volumes),
    ):
        assert mean is not None
        assert mean.mean == pytest.approx(series[rows].mean())
        assert mean.error > 0.0
        assert mean.n == rows.sum()
    assert molecular_dynamics(copper(), EMT(), temperature=300.0, steps=2, seed=1).volume is None


class _Doubtful(EMT):
    diagnostics: dict[str, Any] = {}  # noqa: RUF012

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        super().calculate(*args, **kwargs)
        grown = self.diagnostics.get("forces_std", np.zeros(4)) + np.array([0.0, 0.01, 0.0, 0.0])
        self.diagnostics = {"forces_std": grown, "extrapolation": 2 * grown}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_spread": 0.045}, "the committee's spread of a force, eV/Å, was 0.05, more than 0.045"),
        ({"max_extrapolation": 0.022}, "the mean extrapolation was 0.025, more than 0.022"),
    ],
)
def test_a_run_stops_out_of_distribution(limits: dict[str, float], text: str) -> None:
    run = molecular_dynamics(copper(), _Doubtful(), temperature=300.0, steps=30, seed=1, **limits)
    assert run.stopped_because == f"after 4 steps {text}"


@needs_default_model
def test_the_packaged_model_tells_how_far_it_extrapolates() -> None:
    calc = AndersoNN(compile=False, device="cpu")
    run = molecular_dynamics(bulk("Si"), calc, temperature=300.0, steps=3, seed=1, max_extrapolation=1e-9)
    assert run.steps == 0
    assert "the mean extrapolation was " in str(run.stopped_because)


def test_limits_of_what_the_calculator_does_not_tell() -> None:
    with pytest.raises(ValueError, match="does not tell it"):
        molecular_dynamics(copper(), EMT(), temperature=300.0, steps=3, max_spread=0.1)


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


def test_states_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    options: dict[str, Any] = {"temperature": 300.0, "seed": 1, "restart": path}
    molecular_dynamics(copper(), EMT(), steps=3, **options)
    good = path.read_bytes()

    def refused(text: str, atoms: Atoms | None = None, calc: Any = None, **more: Any) -> None:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=text):
            molecular_dynamics(atoms or copper(), calc or EMT(), steps=5, **{**options, "resume": True, **more})
        assert path.read_bytes() == before

    refused("is there already", resume=False)
    refused("another structure", atoms=copper(0.03))
    refused("temperature was 300.0 and is 400.0", temperature=400.0)
    refused("seed was 1 and is 2", seed=2)
    refused("another calculator", calc=LennardJones(sigma=2.2, epsilon=0.3))
    for k in range(0, len(good), 97):
        path.write_bytes(good[:k] + bytes([good[k] ^ 4]) + good[k + 1 :])
        refused("no state of molecular dynamics")
    path.write_bytes(good[:-50])
    refused("no state of molecular dynamics")
    path.unlink()
    monte_carlo(copper(), EMT(), temperature=300.0, sweeps=1, restart=path)
    refused("a file of another kind")
    path.write_bytes(good)
    assert molecular_dynamics(copper(), EMT(), steps=5, **options, resume=True).steps == 5


def test_a_trajectory_that_is_not_the_states_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"temperature": 300.0, "seed": 1, "every": 1, "restart": tmp_path / "x.npz"}
    options |= {"trajectory": tmp_path / "x.traj", "log": tmp_path / "x.log"}
    molecular_dynamics(copper(), EMT(), steps=3, **options)
    for name in ("x.traj", "x.log"):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(ValueError, match=r"cannot be read|shorter"):
            molecular_dynamics(copper(), EMT(), steps=5, resume=True, **options)
        (tmp_path / name).write_bytes(good)
    assert molecular_dynamics(copper(), EMT(), steps=5, resume=True, **options).steps == 5
    assert len(read(tmp_path / "x.traj", ":")) == 6
