"""Molecular dynamics: reasons to stop a run."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from md_structures import copper
from tight import needs_default_model

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


@needs_default_model
def test_the_packaged_model_gives_an_extrapolation() -> None:
    calc = AndersoNN(compile=False, device="cpu")
    run = molecular_dynamics(bulk("Si"), calc, temperature=300.0, steps=3, seed=1, max_extrapolation=1e-9)
    assert run.steps == 0
    assert "the mean extrapolation was " in str(run.stopped_because)


def test_limits_of_quantities_that_the_calculator_does_not_give() -> None:
    with pytest.raises(ValueError, match="does not tell it"):
        molecular_dynamics(copper(), EMT(), temperature=300.0, steps=3, max_spread=0.1)
