"""Runs that begin with a trained model: nothing but the reference energies moves, and learning goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn import load_model, save_model
from ase_andersonn.backends import resolve_dtype
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.interface import ConvergenceError
from ase_andersonn.training import TrainConfig, evaluate_dataset, read_frames, train, train_committee
from ase_andersonn.training import loop as run_module
from ase_andersonn.training.potential_trainer import Trainer
from ase_andersonn.training.setup import TrainingSetup, frames_of

SHIFTS = {7: 300.0, 28: -200.0, 29: 100.0}
"""eV/atom between two levels of theory."""


def other_level(frames: list[Atoms]) -> list[Atoms]:
    moved = []
    for atoms in frames:
        results: dict[str, Any] = dict(atoms.calc.results)
        results["energy"] += sum(SHIFTS[int(z)] for z in atoms.numbers)
        moved.append(atoms.copy())
        moved[-1].calc = SinglePointCalculator(moved[-1], **results)
    return moved


@pytest.fixture
def trained(config: TrainConfig, tmp_path: Path) -> Path:
    train(replace(config, max_epochs=16, learning_rate=0.01))
    return tmp_path / "run" / "last.safetensors"


@pytest.fixture
def again(config: TrainConfig, trained: Path, tmp_path: Path) -> TrainConfig:
    """A run on labels of another level of theory that begins with the trained model."""
    write(tmp_path / "other.extxyz", other_level(read_frames(config.train)))
    return replace(
        config,
        train=(str(tmp_path / "other.extxyz"),),
        output=str(tmp_path / "again"),
        initial=str(trained),
        model={},
        max_epochs=2,
    )


def test_reference_energies_alone_move_to_the_new_labels(again: TrainConfig, trained: Path) -> None:
    before, model = load_model(trained), TrainingSetup.from_config(again).model
    assert isinstance(before, DEQAttention)
    assert isinstance(model, DEQAttention)
    for name, value in before.state_dict().items():
        if name != "reference":
            assert torch.equal(model.state_dict()[name], value), name
    moved = (model.reference - before.reference).tolist()
    # The trained model's own mean error of each element moves too; it is far smaller than the shift.
    assert moved == pytest.approx([SHIFTS[z] for z in model.elements], abs=1.0)


def test_every_element_moves_where_only_some_frames_have_energies(again: TrainConfig, tmp_path: Path) -> None:
    """An element without energies takes the mean, as in `reference_energies`."""
    frames = read_frames(again.train)
    for atoms in frames:
        if 28 in atoms.numbers:
            del atoms.calc.results["energy"]
    write(tmp_path / "some.extxyz", frames)
    before = load_model(again.initial).state_dict()["reference"]
    found = TrainingSetup.from_config(replace(again, train=(str(tmp_path / "some.extxyz"),))).model
    nitrogen, nickel, copper = (found.state_dict()["reference"] - before).tolist()
    assert [nitrogen, copper] == pytest.approx([SHIFTS[7], SHIFTS[29]], abs=1.0)
    assert min(nitrogen, copper) < nickel < max(nitrogen, copper)


def test_labels_that_the_model_predicts_move_nothing(again: TrainConfig, tmp_path: Path) -> None:
    model = load_model(again.initial)
    frames = read_frames(again.train)
    found = evaluate_dataset(model, frames, tolerance=1e-10).predicted  # type: ignore[arg-type]
    for atoms, energy in zip(frames, found.energy.tolist(), strict=True):
        atoms.calc.results["energy"] = energy
    write(tmp_path / "own.extxyz", frames)
    again = replace(again, train=(str(tmp_path / "own.extxyz"),))
    moved = TrainingSetup.from_config(again).model.state_dict()["reference"] - model.state_dict()["reference"]
    assert moved.abs().max() < 1e-4


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("float64", 1e-12)])
def test_a_run_begins_where_the_model_ended_and_learns_on(again: TrainConfig, dtype: str, atol: float) -> None:
    frames = read_frames(again.train)
    again = replace(again, dtype=dtype, max_epochs=6, learning_rate=5e-4)
    ended, begun = load_model(again.initial).to(resolve_dtype(dtype)), TrainingSetup.from_config(again).model
    forces = [evaluate_dataset(model, frames).predicted.forces for model in (ended, begun)]  # type: ignore[arg-type]
    torch.testing.assert_close(*forces, rtol=0, atol=atol)
    losses = [record["validation"]["loss"] for record in train(again).log.read()]
    assert losses[-1] < losses[0]


def test_what_it_began_with_stays_the_best_where_training_makes_it_worse(
    again: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    wild = train(replace(again, learning_rate=0.3, warmup=0.0, validation_fraction=0.3))
    records = wild.log.read()
    assert [record["epoch"] for record in records] == [0, 1, 2]
    start, *others = (record["validation"]["loss"] for record in records)
    assert start < min(others)
    assert wild.position.best == start
    assert "no epoch was better on the validation frames" in caplog.text
    best = evaluate_dataset(load_model(wild.folder / "best.safetensors"), frames_of(wild.config)[1])
    assert best.errors["all"].forces.mae == pytest.approx(records[0]["validation"]["errors"]["all"]["forces"]["mae"])


@pytest.mark.parametrize("batch_atoms", [10, 1000])
def test_a_run_that_diverges_says_so(again: TrainConfig, batch_atoms: int) -> None:
    """Also where a single batch is an epoch, and the validation after it sees it first."""
    again = replace(again, learning_rate=1e4, warmup=0.0, max_epochs=100, batch_atoms=batch_atoms)
    with pytest.raises(ConvergenceError, match=r"step \d+: .* the run diverged: lower learning_rate"):
        train(again)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_the_schedule_begins_with_the_first_step(again: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the validation before it, however long it takes."""
    clock, rates = Clock(), []
    monkeypatch.setattr(run_module, "time", clock)

    def validate(trainer: Trainer, so_far: Callable[[Trainer], Any] = Trainer.validate) -> Any:
        clock.now += 1e6
        return so_far(trainer)

    def backward(trainer: Trainer, indices: list[int], so_far: Callable[..., Any] = Trainer.backward) -> Any:
        clock.now += 60.0
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return so_far(trainer, indices)

    monkeypatch.setattr(Trainer, "validate", validate)
    monkeypatch.setattr(Trainer, "backward", backward)
    run = train(replace(again, max_epochs=None, max_minutes=3.0, warmup=0.9))
    assert len(rates) == 3
    assert rates[0] < rates[1] < rates[2] < again.learning_rate
    assert [record["epoch"] for record in run.log.read()][:2] == [0, 1]


def test_what_it_begins_with_is_validated_once(again: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is interrupted before its first step; the rest is as if it had not been."""
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(again)
    resumed = train(again, resume=True)
    whole = train(again, fresh=True)
    assert [record["epoch"] for record in resumed.log.read()] == [0, 1, 2]
    assert [record["validation"]["loss"] for record in resumed.log.read()] == [
        record["validation"]["loss"] for record in whole.log.read()
    ]


def test_without_validation_frames_there_is_nothing_to_begin_with(again: TrainConfig) -> None:
    run = train(replace(again, validation_fraction=0.0))
    assert [record["epoch"] for record in run.log.read()] == [1, 2]
    assert not (run.folder / "best.safetensors").exists()


def test_a_run_begun_anew_does_not_go_on_with_the_old_one(again: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train(again)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(again, fresh=True)
    assert train(again, resume=True).log.read()[0]["epoch"] == 0


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_loaded_model_is_trainable(again: TrainConfig) -> None:
    frames = read_frames(again.train)
    model = load_model(again.initial)
    assert isinstance(model, DEQAttention)
    trainer = Trainer(again, TrainingSetup.from_trained(again, model, frames, frames))
    before = model.output.detach().clone()
    for batch in trainer.sampler.epoch(0)[:2]:
        trainer.step(batch)
    assert not torch.equal(model.output, before)


def test_a_fresh_run_may_begin_with_the_best_model_of_the_run_it_replaces(again: TrainConfig, tmp_path: Path) -> None:
    train(replace(again, max_epochs=1))
    best = tmp_path / "again" / "best.safetensors"
    with pytest.raises(FileNotFoundError):
        train(replace(again, initial=str(tmp_path / "nowhere")), fresh=True)
    assert best.exists()
    train(replace(again, initial=str(best)), fresh=True)
    assert load_model(best).card["training"]["config"]["initial"] == "best.safetensors"


def test_an_interrupted_run_goes_on_without_the_model_it_began_with(again: TrainConfig, trained: Path) -> None:
    first = Trainer(again)
    first.folder.mkdir()
    first.save_checkpoint()
    trained.unlink()
    with pytest.raises(FileNotFoundError):
        train(again, fresh=True)
    assert train(again, resume=True).position.epoch == 2


def test_a_committee_does_not_begin_with_one_model(again: TrainConfig, trained: Path) -> None:
    with pytest.raises(ValueError, match="hardly differ"):
        train_committee(replace(again, output=str(trained.parent)), 2, fresh=True)
    assert trained.exists()


def test_it_resumes_as_if_never_interrupted_and_its_card_names_the_model_it_began_with(
    again: TrainConfig, tmp_path: Path
) -> None:
    first = Trainer(again)
    first.step(first.sampler.epoch(0)[0])
    first.folder.mkdir()
    first.save_checkpoint()
    run = train(again, resume=True)
    whole = train(replace(again, output=str(tmp_path / "whole")))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value), name
    card = load_model(tmp_path / "again" / "best.safetensors").card
    assert card["training"]["config"]["initial"] == "last.safetensors"
    assert "Begun with last.safetensors" in card["limits"][0]
    assert str(tmp_path) not in str(card)


def test_distances_nearer_than_the_model_knew_are_seen_and_farther_ones_change_nothing(again: TrainConfig) -> None:
    frames = read_frames(again.train)
    model = load_model(again.initial)
    assert isinstance(model, DEQAttention)
    known = model.min_distance.clone()
    far, near = [atoms.copy() for atoms in frames], [atoms.copy() for atoms in frames]
    for factor, scaled in ((1.1, far), (0.8, near)):
        for atoms, frame in zip(scaled, frames, strict=True):
            atoms.set_cell(factor * atoms.cell, scale_atoms=bool(atoms.pbc.any()))
            atoms.positions *= factor if not atoms.pbc.any() else 1.0
            atoms.calc = SinglePointCalculator(
                atoms, energy=frame.get_potential_energy(), forces=np.ones((len(atoms), 3))
            )
    found = {
        name: TrainingSetup.from_trained(again, load_model(again.initial), x, x)
        for name, x in (("far", far), ("near", near))
    }
    assert torch.equal(found["far"].model.state_dict()["min_distance"], known)
    lowered = found["near"].model.state_dict()["min_distance"] / known
    for first, second in found["near"].train.min_distance():
        i, j = model.elements.index(first), model.elements.index(second)
        assert lowered[i, j] == lowered[j, i] == pytest.approx(0.8, rel=1e-3)


def test_what_cannot_begin_a_run_is_refused(again: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out model"):
        replace(again, model={"n_hidden": 8})
    with pytest.raises(ValueError, match="leave out model"):
        replace(again, reference_energies={"Cu": 1.0})
    with pytest.raises(ValueError, match="is a DEQAttention and architecture is DEQCartesian"):
        train(replace(again, architecture="DEQCartesian"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(replace(again, initial="nowhere"))
    model = load_model(again.initial)
    assert isinstance(model, DEQAttention)
    (tmp_path / "two").mkdir()
    for seed in range(2):
        model.output.mul_(1.1)
        save_model(model, tmp_path / "two" / f"{seed}.safetensors")
    with pytest.raises(ValueError, match="is a Committee; a run begins with one model"):
        train(replace(again, initial=str(tmp_path / "two")))
    strange = read_frames(again.train)
    strange[0].numbers[0] = 79
    with pytest.raises(ValueError, match=r"training frames contain Au.* knows N, Ni, Cu; begin with another model"):
        TrainingSetup.from_trained(again, load_model(again.initial), strange, [])  # type: ignore[arg-type]
    assert not Path(again.output).exists()
