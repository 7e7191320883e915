"""Training runs: they learn, resume exactly, survive kill -9, and never hide what went wrong."""

import itertools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn import load_model
from ase_andersonn.config import write_config
from ase_andersonn.nn.radial import clamped_distance
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.training import TrainConfig, evaluate_dataset, read_frames, train
from ase_andersonn.training import loop as run
from ase_andersonn.training import potential_trainer as trainer
from ase_andersonn.training.config import LabelKeys
from ase_andersonn.training.data.targets import Targets
from ase_andersonn.training.losses import LossTerms
from ase_andersonn.training.potential_trainer import MAX_SKIPPED_IN_A_ROW, Trainer, is_decayed
from ase_andersonn.training.run_checkpoint import read_checkpoint
from ase_andersonn.training.setup import TrainingSetup, build_model, frames_of

CLOCK = ("minutes", "seconds", "metrics_sha256")


def without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: without_clock(v)
            for k, v in value.items()
            if k not in (*CLOCK, "output", "metrics_size", "metrics_sha256")
        }
    return value


def assert_same_run(a: Path, b: Path) -> None:
    """All tensors bit for bit, and all numbers but the times."""
    tensors, state = read_checkpoint(a / "checkpoint.safetensors")
    other_tensors, other_state = read_checkpoint(b / "checkpoint.safetensors")
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name
    assert without_clock(state) == without_clock(other_state)
    lines, other_lines = ((x / "metrics.jsonl").read_text().splitlines() for x in (a, b))
    assert [without_clock(json.loads(x)) for x in lines] == [without_clock(json.loads(x)) for x in other_lines]
    assert best_weights(a).keys() == best_weights(b).keys()
    for name, tensor in best_weights(a).items():
        assert torch.equal(tensor, best_weights(b)[name]), name


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "best.safetensors").state_dict()


class Killed(Exception):
    """Stands for the death of the process."""


class MortalTrainer(Trainer):
    """Dies after some steps, without a chance to save anything."""

    def __init__(self, config: TrainConfig, steps: int) -> None:
        super().__init__(config)
        self.steps_left = steps

    def step(self, indices: list[int]) -> None:
        if self.steps_left == 0:
            raise Killed
        self.steps_left -= 1
        super().step(indices)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("steps", "checkpoint_minutes"), [(1, 0.0), (5, 0.0), (8, 60.0)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    config: TrainConfig, tmp_path: Path, steps: int, checkpoint_minutes: float
) -> None:
    config = replace(config, energy_weight_final=20.0, checkpoint_minutes=checkpoint_minutes)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    assert whole.finished
    assert whole.position.step > steps
    with pytest.raises(Killed):
        MortalTrainer(config, steps).fit()
    resumed = train(config, resume=True)
    assert resumed.position.step == whole.position.step
    assert_same_run(tmp_path / "whole", tmp_path / "run")


SLOW_RUN = """
import sys, time
from ase_andersonn.config import read_config
from ase_andersonn.training import TrainConfig
from ase_andersonn.training.potential_trainer import Trainer

class SlowTrainer(Trainer):
    def step(self, indices):
        super().step(indices)
        time.sleep(0.2)

SlowTrainer(read_config(TrainConfig, sys.argv[1])).fit()
"""


@pytest.mark.usefixtures("one_thread")
def test_a_run_survives_kill_9(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, checkpoint_minutes=0.0)
    write_config(config, tmp_path / "config.yaml")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    process = start(SLOW_RUN, tmp_path / "config.yaml")
    try:
        wait_for(lambda: checkpoint.exists() and steps_in(checkpoint) >= 2, process)
    finally:
        process.kill()
        process.wait()
    killed_at = steps_in(checkpoint)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    assert killed_at < whole.position.step
    train(config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("one_thread")
def test_a_signal_saves_and_stops(config: TrainConfig, tmp_path: Path, number: signal.Signals) -> None:
    class Interrupted(Trainer):
        def step(self, indices: list[int]) -> None:
            if self.position.step == 2:
                os.kill(os.getpid(), number)
            super().step(indices)

    before = signal.getsignal(number)
    stopped = Interrupted(config)
    stopped.fit()
    assert signal.getsignal(number) is before
    assert not stopped.finished
    assert stopped.position.step == 3  # the step during which the signal came is still done
    assert steps_in(tmp_path / "run" / "checkpoint.safetensors") == 3
    train(config, resume=True)
    train(replace(config, output=str(tmp_path / "whole")))
    assert_same_run(tmp_path / "whole", tmp_path / "run")


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
    first = MortalTrainer(config, 6)
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


def test_an_existing_run_is_not_overwritten_by_accident(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, max_epochs=1)
    train(config)
    with pytest.raises(FileExistsError, match="--resume"):
        train(config)
    assert train(config, resume=True).position.epoch == 1  # nothing left to do
    assert len(train(config, fresh=True).log.read()) == 1
    with pytest.raises(ValueError, match=r"learning_rate: 0\.002 then, 0\.5 now"):
        train(replace(config, learning_rate=0.5), resume=True)
    longer = train(replace(config, max_epochs=2), resume=True)
    assert longer.position.epoch == 2
    data = tmp_path / "frames.extxyz"
    data.write_text(data.read_text().replace("energy=", "energy=1"))
    with pytest.raises(ValueError, match="other data"):
        train(config, resume=True)


def test_elements_of_the_validation_set_have_to_be_known(config: TrainConfig) -> None:
    frames = read_frames(config.train)
    metals = [atoms for atoms in frames if 7 not in atoms.numbers]
    model = build_model(config, (28, 29))
    with pytest.raises(ValueError, match="validation frames contain N,"):
        TrainingSetup.from_frames(config, model, metals, frames)


def test_reference_energies_of_elements_that_the_model_does_not_know(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="reference_energies names O, Au, which the model does not know; leave that"):
        TrainingSetup.from_config(replace(config, reference_energies={"Au": 1.0, "Cu": 2.0, "O": 3.0}))


def test_elements_are_symbols_or_numbers(config: TrainConfig) -> None:
    def elements(given: object) -> tuple[int, ...]:
        return build_model(replace(config, model={**config.model, "elements": given}), (28, 29)).elements

    assert elements(["Cu", "N", "Ni"]) == elements([7, 28, 29]) == (7, 28, 29)
    for wrong in (["Cu", "Nx"], ["Cu", 28], "Cu"):
        with pytest.raises(TypeError, match=r"model\.elements"):
            elements(wrong)


def test_a_model_of_forces_alone_says_so(
    config: TrainConfig, frames: list[Atoms], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for atoms in frames:
        del atoms.calc.results["energy"]
    write(tmp_path / "forces.extxyz", frames)
    for changes in ({"train": (str(tmp_path / "forces.extxyz"),)}, {"energy_weight": 0.0}):
        caplog.clear()
        found = train(replace(config, max_epochs=1, **changes), fresh=True)
        assert "no energies are learnt: those of the model are known but for a number" in caplog.text
        assert "No energies were learnt" in load_model(found.folder / "best.safetensors").card["limits"][0]


@pytest.mark.parametrize(
    ("charge", "partial", "told"),
    [
        (1, 0.0, True),
        ("+1", 0.0, True),
        ([0.6, 0.4], 0.0, True),
        (0, 0.1, False),
        ("neutral", 0.0, False),
        (math.nan, 0.0, False),
    ],
)
def test_charged_frames_are_told_of(
    config: TrainConfig, frames: list[Atoms], charge: Any, partial: float, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for atoms in frames[:3]:
        atoms.info["charge"] = charge
        atoms.set_initial_charges([partial, -partial, *[0.0] * (len(atoms) - 2)])
    write(config.train[0], frames)
    frames_of(config)
    assert ("3 of 10 frames are charged, and the model knows no charges" in caplog.text) == told


@pytest.mark.parametrize("weights", [{"energy_weight": 0.0, "forces_weight": 0.0}, {"energy_weight": 0.0}])
def test_labels_without_a_weight_are_none(config: TrainConfig, tmp_path: Path, weights: dict[str, float]) -> None:
    """The others have a weight, the stress by default, but no frame has them."""
    frame = Atoms("N2", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
    frame.calc = SinglePointCalculator(frame, energy=-1.0)
    write(tmp_path / "energies.extxyz", [frame] * 4)
    changed = replace(config, train=(str(tmp_path / "energies.extxyz"),), **weights)
    with pytest.raises(ValueError, match=r"the weights ask for .*stress, and the training frames have energy"):
        TrainingSetup.from_config(changed)


def test_a_label_that_no_validation_frame_has_is_told_of(
    config: TrainConfig, frames: list[Atoms], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Molecules beside crystals that have stresses are no error; a misspelt name looks the same."""
    named = [atoms.copy() for atoms in frames]
    for atoms, own in zip(named, frames, strict=True):
        atoms.info["dft"] = own.get_potential_energy()
    write(tmp_path / "named.extxyz", named)
    frames_of(
        replace(
            config,
            train=(str(tmp_path / "named.extxyz"),),
            validation=config.train,
            labels=LabelKeys(energy="dft"),
        )
    )
    assert "no validation frame has energy under the name 'dft'; the first has energy" in caplog.text


def test_batches_of_few_atoms_are_trained_on_one_thread(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(trainer, "threads_for", lambda n_atoms: asked.append(n_atoms) or nullcontext())
    for batch_atoms in (2, 40):  # the largest frame has 8 atoms
        train(replace(config, batch_atoms=batch_atoms, max_epochs=1), fresh=True)
    assert asked == [8, 40]


def test_frames_in_both_sets_are_told_of(config: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    frames_of(config)
    assert not caplog.text
    frames_of(replace(config, validation=config.train))
    assert "10 of the 10 validation frames are training frames as well" in caplog.text


def test_distances_are_seen_a_little_below_the_shortest_of_the_frames(config: TrainConfig) -> None:
    experiment = TrainingSetup.from_config(config)
    model = experiment.model
    assert isinstance(model, DEQAttention)
    for pair, shortest in experiment.train.min_distance().items():
        first, second = (model.elements.index(z) for z in pair)
        for seen in (model.min_distance[first, second], model.min_distance[second, first]):
            assert float(seen) == pytest.approx(0.9 * shortest)
            near = torch.tensor(0.92 * shortest)
            assert clamped_distance(near, seen) == near


def test_the_users_random_numbers_are_left_alone(config: TrainConfig) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(replace(config, max_epochs=1))
    assert torch.equal(torch.rand(3), expected)


def steps_in(checkpoint: Path) -> int:
    step: int = read_checkpoint(checkpoint)[1]["position"]["step"]
    return step


def start(code: str, *args: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], env=environment)


def wait_for(condition: Any, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, "the run ended too early"
        time.sleep(0.05)
    raise AssertionError("the run did not come far enough within a minute")
