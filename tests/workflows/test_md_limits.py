"""Molecular dynamics: reasons to stop a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from md_structures import copper

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.md import molecular_dynamics


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


class _Extrapolating(EMT):
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
    run = molecular_dynamics(copper(), _Extrapolating(), temperature=300.0, steps=30, seed=1, **limits)
    assert run.stopped_because == f"after 4 steps {text}"


def test_the_packaged_model_gives_an_extrapolation() -> None:
    calc = AndersoNN(compile=False, device="cpu")
    run = molecular_dynamics(bulk("Si"), calc, temperature=300.0, steps=3, seed=1, max_extrapolation=1e-9)
    assert run.steps == 0
    assert "the mean extrapolation was " in str(run.stopped_because)


def test_limits_of_quantities_that_the_calculator_does_not_give() -> None:
    with pytest.raises(ValueError, match="does not give it"):
        molecular_dynamics(copper(), EMT(), temperature=300.0, steps=3, max_spread=0.1)
