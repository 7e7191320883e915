"""Stresses of another sign or unit are doubted before training, right ones are not."""

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa

from ase_andersonn.training import LabelKeys
from ase_andersonn.training.stress_contradictions import FEWEST, warn_of_stresses

KEYS = LabelKeys()
KBAR = 0.1 * GPa


def strained(n: int, times: float, *, rattle: float = 0.05, strain: float = 0.03, wrap: bool = False) -> list[Atoms]:
    """Strained and rattled copper whose stresses are a multiple of the right ones."""
    rng, frames = np.random.default_rng(3), []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        deformation = rng.uniform(-strain, strain, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (deformation + deformation.T)), scale_atoms=True)
        atoms.positions += rng.normal(scale=rattle, size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        if wrap:
            atoms.positions += rng.integers(-2, 3, size=(4, 3)) @ atoms.cell.array
        atoms.calc = SinglePointCalculator(atoms, **{**labels, "stress": times * labels["stress"]})
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("rattle", [0.0, 0.1])
def test_right_stresses_are_not_doubted(caplog: pytest.LogCaptureFixture, *, rattle: float, wrap: bool) -> None:
    warn_of_stresses(strained(60, 1.0, rattle=rattle, wrap=wrap), KEYS)
    assert not caplog.text


@pytest.mark.parametrize(("times", "slope"), [(-1.0, -1.0), (1.0 / GPa, GPa), (-1.0 / KBAR, -KBAR)])
def test_other_signs_and_units_are_doubted(times: float, slope: float, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_stresses(strained(60, times), KEYS, "validation ")
    assert "energies and stresses of the validation frames contradict each other" in caplog.text
    assert float(caplog.text.split("energy changes by ")[1].split()[0]) == pytest.approx(slope, rel=0.15)


@pytest.mark.parametrize("changes", ["few", "far", "one cell", "not periodic", "no stress", "no energy"])
def test_what_cannot_be_compared_is_not_doubted(changes: str, caplog: pytest.LogCaptureFixture) -> None:
    frames = strained(FEWEST if changes == "few" else 60, -1.0, rattle=0.5 if changes == "far" else 0.05)
    for atoms in frames:
        if changes == "one cell":
            atoms.set_cell(frames[0].cell)
        elif changes == "not periodic":
            atoms.pbc = (True, True, False)
        elif changes.startswith("no "):
            del atoms.calc.results[changes.removeprefix("no ")]
    with caplog.at_level(logging.WARNING):
        warn_of_stresses(frames, KEYS)
    assert not caplog.text
