"""Training runs: the loss falls, the best model is kept, steps that are not finite are left out."""

import itertools
import json
import logging
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from interrupted import Killed, killed_after

from ase_andersonn import load_model
from ase_andersonn.training import TrainConfig, evaluate_dataset, read_frames, train
from ase_andersonn.training import loop as run
from ase_andersonn.training import potential_trainer as trainer
from ase_andersonn.training.data.targets import Targets
from ase_andersonn.training.losses import LossTerms
from ase_andersonn.training.potential_trainer import MAX_SKIPPED_IN_A_ROW, Trainer, is_decayed
from ase_andersonn.training.setup import TrainingSetup


def test_training_learns_and_leaves_its_results(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, max_epochs=25, learning_rate=5e-3, validate_every=5)
    trainer = train(config)
    records = trainer.log.read()
    assert [r["epoch"] for r in records if "validation" in r] == [5, 10, 15, 20, 25]
    assert records[-1]["train"]["loss"] < 0.7 * records[0]["train"]["loss"]
    assert (tmp_path / "run" / "learning_curve.png").stat().st_size > 1000
    model = load_model(tmp_path / "run" / "best.safetensors")
    assert model.card["training"]["config"]["max_epochs"] == 25
    assert model.card["training"]["config"]["train"] == ["frames.extxyz"]
    assert str(tmp_path) not in json.dumps(model.card)
    last = load_model(tmp_path / "run" / "last.safetensors")
    for name, p in last.named_parameters():
        assert torch.equal(p, trainer.average.average[name])
    frames = read_frames(config.train)
    errors = evaluate_dataset(model, frames).errors["all"]
    assert errors.forces.count == 3 * sum(map(len, frames))
    untrained = TrainingSetup.from_config(config).model
    assert errors.forces.mae < evaluate_dataset(untrained, frames).errors["all"].forces.mae


def test_the_best_model_is_the_one_with_the_lowest_validation_loss(config: TrainConfig, tmp_path: Path) -> None:
    trainer = train(replace(config, max_epochs=4))
    losses = [r["validation"]["loss"] for r in trainer.log.read()]
    card = load_model(tmp_path / "run" / "best.safetensors").card
    assert trainer.position.best == min(losses) == card["validation"]["loss"]
    assert card["training"]["epoch"] == 1 + losses.index(min(losses))


def test_a_run_in_minutes_ends_in_time(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second whenever it is read, so that no machine is too slow."""
    clock = itertools.count(1000.0)
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    config = replace(config, max_epochs=None, max_minutes=1.0, checkpoint_minutes=0.0)
    first = killed_after(6, Trainer(config))
    with pytest.raises(Killed):
        first.fit()
    spent = first.position.seconds
    assert 6.0 <= spent < 60.0
    resumed = Trainer(config)
    resumed.resume()
    assert spent - 4.0 <= resumed.position.seconds <= spent
    resumed.fit()
    assert resumed.finished
    assert 60.0 <= resumed.position.seconds < 70.0
    assert "validation" in resumed.log.read()[-1]
    assert resumed.log.read()[-1]["learning_rate"] < 0.1 * config.learning_rate


def test_steps_that_are_not_finite_are_left_out_and_counted(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(config)
    batches = trainer.sampler.epoch(0)
    trainer.step(batches[0])
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("ase_andersonn.training.potential_trainer.loss_terms", broken_loss)
        trainer.step(batches[1])
        assert (trainer.position.step, trainer.position.skipped, trainer.average.updates) == (2, 1, 1)
        assert "gradient not finite" in caplog.text
        for name, p in trainer.model.named_parameters():
            assert torch.equal(p, before[name])
        for _ in range(MAX_SKIPPED_IN_A_ROW - 2):
            trainer.step(batches[1])
        with pytest.raises(RuntimeError, match="50 steps in a row had a gradient that is not finite"):
            trainer.step(batches[1])
    trainer.step(batches[2])
    assert trainer.position.skipped_in_a_row == 0
    assert trainer.average.updates == 2


def broken_loss(predicted: Targets, *args: Any) -> Any:
    value = predicted.energy.sum() * math.nan
    return LossTerms(value, value, value)


def test_only_matrices_decay(config: TrainConfig) -> None:
    trainer = Trainer(config)
    names = {name for name, p in trainer.model.named_parameters() if is_decayed(name, p)}
    assert names
    assert all(name.endswith(".weight") for name in names)
    decayed, free = trainer.optimizer.param_groups
    assert decayed["weight_decay"] == config.weight_decay
    assert free["weight_decay"] == 0.0
    assert len(decayed["params"]) == len(names)
    assert len(decayed["params"]) + len(free["params"]) == len(list(trainer.model.parameters()))


def test_batches_of_few_atoms_are_trained_on_one_thread(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(trainer, "threads_for", lambda n_atoms: asked.append(n_atoms) or nullcontext())
    for batch_atoms in (2, 40):  # the largest frame has 8 atoms
        train(replace(config, batch_atoms=batch_atoms, max_epochs=1), fresh=True)
    assert asked == [8, 40]


def test_the_users_random_numbers_are_left_alone(config: TrainConfig) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(replace(config, max_epochs=1))
    assert torch.equal(torch.rand(3), expected)
