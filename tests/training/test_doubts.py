"""What speaks against the labels is said: frames unlike all others, and labels that contradict each other."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn.training import LabelKeys, TrainConfig, evaluate_dataset, train
from ase_andersonn.training.doubts import UNLIKE, check_lengths_of, unexplained, warn_of_little, warn_of_unlike
from ase_andersonn.training.metrics import EvaluationReport, error_table
from ase_andersonn.training.setup import Experiment, build_model

KEYS = LabelKeys()


def copper(n: int, forces_times: float = 1.0) -> list[Atoms]:
    """Rattled copper whose forces are a multiple of the right ones."""
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(scale=rng.uniform(0.02, 0.2), size=atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces_times * forces)
        frames.append(atoms)
    return frames


def test_frames_unlike_all_others_are_named(caplog: pytest.LogCaptureFixture) -> None:
    frames = copper(20)
    warn_of_unlike(frames, KEYS)
    assert not caplog.text
    frames[7].calc.results["forces"] = (
        2 * UNLIKE * max(np.abs(f.calc.results["forces"]).max() for f in frames) * (np.ones((4, 3)))
    )
    warn_of_unlike(frames, KEYS)
    assert "1 of 20 frames have forces more than 30 times as large" in caplog.text
    assert "Cu4 (" in caplog.text


def test_forces_of_ordinary_size_are_like_those_of_frames_at_rest(caplog: pytest.LogCaptureFixture) -> None:
    frames = copper(20, 1e-4)
    frames[3].calc.results["forces"] = np.full((4, 3), 2.0)
    warn_of_unlike(frames, KEYS)
    assert not caplog.text


def test_one_energy_unlike_all_others_is_named(caplog: pytest.LogCaptureFixture) -> None:
    frames = copper(20)
    frames[5].calc.results["energy"] += 100.0
    warn_of_unlike(frames, KEYS)
    assert (
        "1 of 20 frames have energies, besides the elements' own, more than 30 times as far from the median as"
        in caplog.text
    )


def test_isolated_atoms_and_molecules_are_not_unlike_bulk(caplog: pytest.LogCaptureFixture) -> None:
    frames = copper(20)
    for atoms in (Atoms("Cu"), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])):
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    warn_of_unlike(frames, KEYS)
    check_lengths_of(frames)
    assert not caplog.text


@pytest.mark.parametrize(("stress", "doubted"), [(0.05, False), (8.0, True)])
def test_stresses_in_gigapascals_are_doubted(caplog: pytest.LogCaptureFixture, *, stress: float, doubted: bool) -> None:
    """8 GPa, or 0.05 eV/Å³, is an ordinary strain; 8 eV/Å³ is none."""
    frames = copper(12)
    for atoms in frames[:7]:
        atoms.calc.results["stress"] = np.array([stress, 0.0, 0.0, 0.0, 0.0, 0.0])
    warn_of_unlike(frames, KEYS)
    assert ("half of the stresses are above 8 eV/Å³, 1.28e+03 GPa" in caplog.text) == doubted


def test_lengths_in_another_unit_are_refused() -> None:
    frames = copper(9)
    check_lengths_of(frames)
    for k, atoms in enumerate(frames):
        if k % 3 == 0:  # some may be collisions
            atoms.set_cell(0.1 * atoms.cell, scale_atoms=True)
    check_lengths_of(frames)
    for k, atoms in enumerate(frames):
        if k % 3 == 1:
            atoms.set_cell(0.1 * atoms.cell, scale_atoms=True)
    with pytest.raises(ValueError, match=r"6 of 9 frames hold atoms too close together: Cu4: atoms .* Are the lengths"):
        check_lengths_of(frames)


@pytest.mark.parametrize(("times", "doubted"), [(1.0, False), (1.89, True)])
def test_lengths_in_bohr_are_doubted(caplog: pytest.LogCaptureFixture, *, times: float, doubted: bool) -> None:
    frames = [*copper(5), Atoms("Cu")]
    for atoms in frames:
        atoms.set_cell(times * atoms.cell, scale_atoms=True)
    check_lengths_of(frames)
    assert ("of 5 frames no two atoms are nearer than 1.5 times" in caplog.text) == doubted


def test_weights_that_diverged_are_not_told_to_train_longer(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_little({"energy": 1e9, "forces": 0.5}, 7)
    assert "nothing was learnt" in caplog.text
    assert "energy 1e+11 %, in the best epoch, 7. Lower learning_rate, or look" in caplog.text


@pytest.mark.parametrize("frames", [copper(3, 0.0), [Atoms("H")]])
def test_forces_that_are_all_zero_or_missing_are_no_doubt(
    frames: list[Atoms], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unlike(frames, KEYS)
    assert not caplog.text


def test_what_is_unexplained_is_one_for_the_mean_and_zero_for_the_labels(config: TrainConfig) -> None:
    frames = copper(12)
    experiment = Experiment.from_frames(config, build_model(config, (29,)), frames, frames)
    said = evaluate_dataset(experiment.model, frames)
    labels, systems = said.labelled, said.systems

    def share(predicted_energy: torch.Tensor, predicted_forces: torch.Tensor) -> dict[str, float]:
        predicted = replace(labels, energy=predicted_energy, forces=predicted_forces)
        report = EvaluationReport(error_table(predicted, labels, systems), predicted, labels, systems)
        return unexplained(experiment.model, report)

    assert share(labels.energy, labels.forces) == {"energy": 0.0, "forces": 0.0}
    assert share(labels.energy.mean().expand(12), torch.zeros_like(labels.forces)) == pytest.approx(
        {"energy": 1.0, "forces": 1.0}
    )
    assert share(labels.energy, -labels.forces)["forces"] == pytest.approx(2.0)


@pytest.mark.parametrize(("times", "doubted"), [(1.0, False), (-1.0, True)])
def test_forces_of_the_wrong_sign_are_told_of_at_the_end(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, times: float, doubted: bool
) -> None:
    data = tmp_path / "copper.extxyz"
    write(data, copper(60, times))
    with caplog.at_level(logging.WARNING):
        train(replace(config, train=(str(data),), batch_atoms=20, max_epochs=12))
    assert ("little was learnt" in caplog.text) == doubted
    assert ("energy" in caplog.text) == doubted
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(replace(config, train=(str(data),), batch_atoms=20, max_epochs=12), resume=True)
    assert ("little was learnt" in caplog.text) == doubted
