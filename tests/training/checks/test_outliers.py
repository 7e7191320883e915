"""What speaks against the labels is said: frames unlike all others, and labels of which little is learnt."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Hartree
from copper_frames import copper, relabelled, trajectory

from ase_andersonn.training import TrainConfig, evaluate_dataset, train
from ase_andersonn.training.checks.learned import MIN_EPOCHS, check_learned, relative_rmse
from ase_andersonn.training.checks.outliers import (
    MIN_OUTLIER_ENERGY,
    MIN_OUTLIER_ENERGY_DIMER,
    OUTLIER_FACTOR,
    check_outliers,
    check_overlaps,
)
from ase_andersonn.training.checks.units import check_lengths_of
from ase_andersonn.training.config import LabelKeys
from ase_andersonn.training.data.dataset import FrameDataset
from ase_andersonn.training.metrics import EvaluationReport, error_table
from ase_andersonn.training.setup import TrainingSetup, build_model, frames_of

KEYS = LabelKeys()


def test_frames_unlike_all_others_are_named() -> None:
    frames = copper(20)
    found = check_outliers(frames, KEYS)
    assert not found
    frames[7].calc.results["forces"] = (
        2 * OUTLIER_FACTOR * max(np.abs(f.calc.results["forces"]).max() for f in frames) * (np.ones((4, 3)))
    )
    found = check_outliers(frames, KEYS)
    assert "1 of 20 frames have forces more than 30 times as large" in "".join(found)
    assert "7, Cu4 (" in "".join(found)


def test_forces_of_ordinary_size_are_like_those_of_frames_at_rest() -> None:
    frames = copper(20, 1e-4)
    frames[3].calc.results["forces"] = np.full((4, 3), 2.0)
    found = check_outliers(frames, KEYS)
    assert not found


def test_one_energy_unlike_all_others_is_named() -> None:
    frames = trajectory(20)
    frames[5].calc.results["energy"] += 2 * MIN_OUTLIER_ENERGY * len(frames[5])
    found = check_outliers(frames, KEYS)
    assert (
        "1 of 20 frames have energies, besides the elements' own, more than 30 times as far from the median as"
        in "".join(found)
    )
    assert "5, Cu8 (1.99 eV/atom)" in "".join(found)


def test_isolated_atoms_and_molecules_are_not_unlike_bulk() -> None:
    frames = copper(20)
    for atoms in (Atoms("Cu"), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])):
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    assert not check_outliers(frames, KEYS)
    assert not check_lengths_of(frames)


def test_frames_with_atoms_on_top_of_each_other_are_named() -> None:
    frames = copper(12)
    found = check_overlaps(FrameDataset(frames, 5.0))
    assert not found
    frames[5].positions[1] = frames[5].positions[0] + [0.05, 0.0, 0.0]
    lone = Atoms("Cu")
    lone.calc = SinglePointCalculator(lone, energy=0.0)
    found = check_overlaps(FrameDataset([*frames, lone], 5.0))
    assert "1 of 13 training frames hold atoms nearer than 0.35 times" in "".join(found)
    assert "frame 5, 0.019 times" in "".join(found)


def test_weights_that_diverged_are_not_told_to_train_longer() -> None:
    found = check_learned({"energy": 1e9, "forces": 50.0}, 7, 12)
    assert "nothing was learned" in "".join(found)
    assert "energy 1e+11 %, forces 5e+03 %, in the best epoch, 7. Lower learning_rate, or look" in "".join(found)


@pytest.mark.parametrize("n_epochs", [1, MIN_EPOCHS - 1])
def test_labels_are_not_doubted_after_a_few_epochs(n_epochs: int) -> None:
    for shares in ({"energy": 1.1, "forces": 0.98}, {"energy": 40.0, "forces": 0.1}, {"energy": 1e9, "forces": 50.0}):
        assert not check_learned(shares, 1, n_epochs)


def test_one_label_learnt_and_another_not_is_a_contradiction() -> None:
    found = check_learned({"energy": 26.7, "forces": 0.017}, 7, 12)
    assert "little was learned" in "".join(found)
    assert "energy 2.67e+03 %, forces 1.7 %, in the best epoch, 7. Labels of one kind were learned" in "".join(found)


def test_validation_frames_are_doubted_as_training_frames_are(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = tmp_path / "good.extxyz", tmp_path / "bad.extxyz"
    write(good, trajectory())
    wrong = relabelled(trajectory(), Hartree, 1.0, 1.0)
    dimer = Atoms("Cu2", [[0, 0, 0], [0, 0, 4.0]])
    dimer.calc = SinglePointCalculator(dimer, energy=0.0, forces=np.zeros((2, 3)))
    strange = dimer.copy()
    strange.calc = SinglePointCalculator(strange, energy=3 * MIN_OUTLIER_ENERGY_DIMER, forces=np.zeros((2, 3)))
    write(bad, [*wrong, strange, *[dimer] * 90])
    frames_of(replace(config, train=(str(good),)))
    assert not caplog.text
    for files, kind in (
        ({"train": (str(bad),)}, ""),
        ({"train": (str(good),), "validation": (str(bad),)}, "validation "),
    ):
        frames_of(replace(config, **files))
        for said in (
            f"{kind}frames most atoms",
            f"{kind}frames have energies",
            f"of the {kind}frames contradict",
        ):
            assert said in caplog.text
        caplog.clear()


def test_frames_at_rest_have_no_spread_to_be_learnt(config: TrainConfig) -> None:
    frames = copper(12, 1e-5)
    for atoms in frames:
        atoms.calc.results["energy"] = 0.0
    experiment = TrainingSetup.from_frames(config, build_model(config, (29,)), frames, frames)
    assert relative_rmse(experiment.model, evaluate_dataset(experiment.model, frames)) == {}


@pytest.mark.parametrize("frames", [copper(3, 0.0), [Atoms("H")]])
def test_forces_that_are_all_zero_or_missing_are_no_doubt(frames: list[Atoms]) -> None:
    found = check_outliers(frames, KEYS)
    assert not found


def test_what_is_unexplained_is_one_for_the_mean_and_zero_for_the_labels(config: TrainConfig) -> None:
    frames = copper(12)
    experiment = TrainingSetup.from_frames(config, build_model(config, (29,)), frames, frames)
    said = evaluate_dataset(experiment.model, frames)
    labels, systems = said.labelled, said.systems

    def share(predicted_energy: torch.Tensor, predicted_forces: torch.Tensor) -> dict[str, float]:
        predicted = replace(labels, energy=predicted_energy, forces=predicted_forces)
        report = EvaluationReport(error_table(predicted, labels, systems), predicted, labels, systems)
        return relative_rmse(experiment.model, report)

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
    assert ("little was learned" in caplog.text) == doubted
    assert ("energy" in caplog.text) == doubted
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(replace(config, train=(str(data),), batch_atoms=20, max_epochs=12), resume=True)
    assert ("little was learned" in caplog.text) == doubted


def test_the_best_epoch_is_the_one_told_of(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = tmp_path / "copper.extxyz"
    write(data, copper(20))
    run = train(replace(config, train=(str(data),), max_epochs=3))
    told = []
    monkeypatch.setattr("ase_andersonn.training.potential_trainer.check_learned", lambda *args: told.append(args) or [])
    run.position.best_epoch = 2
    run.finish()
    shares = [record["validation"]["relative_rmse"] for record in run.log.read()]
    assert told == [(shares[1], 2, 3)]
    assert shares[1] != shares[2]
    run.log.path.unlink()
    run.finish()
    assert told[1:] == [({}, 2, 3)]


def test_labels_that_are_not_learnt_are_not_told_of(config: TrainConfig, tmp_path: Path) -> None:
    data = tmp_path / "copper.extxyz"
    write(data, copper(20))
    run = train(replace(config, train=(str(data),), max_epochs=1, energy_weight=0.0))
    assert set(run.log.read()[0]["validation"]["relative_rmse"]) == {"forces"}
