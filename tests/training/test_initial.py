"""Runs that begin with a trained model: nothing but the reference energies moves, and learning goes on."""

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
from ase_andersonn.models.deq_attention import DEQAttention
from ase_andersonn.training import TrainConfig, Trainer, evaluate_dataset, read_frames, train
from ase_andersonn.training.setup import Experiment

SHIFTS = {7: 3.0, 28: -2.0, 29: 0.5}
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
    train(replace(config, max_epochs=8, learning_rate=0.01))
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
    before, model = load_model(trained), Experiment.from_config(again).model
    assert isinstance(before, DEQAttention)
    assert isinstance(model, DEQAttention)
    for name, value in before.state_dict().items():
        if name != "reference":
            assert torch.equal(model.state_dict()[name], value), name
    old, new = read_frames(again.train), model
    errors = [
        found.predicted.energy - found.labelled.energy
        for found in (evaluate_dataset(new, old), evaluate_dataset(before, old))
    ]
    n = torch.tensor([len(atoms) for atoms in old])
    assert (errors[0] / n).square().mean() < 0.01 * (errors[1] / n).square().mean()
    moved = (model.reference - before.reference).tolist()
    # The old model's own mean error of each element moves too; it is far smaller than the shift.
    assert moved == pytest.approx([SHIFTS[z] for z in model.elements], abs=0.5)


def test_labels_of_the_same_level_move_what_the_model_was_off_in_the_mean(again: TrainConfig, tmp_path: Path) -> None:
    """Predictions as labels: nothing moves."""
    model = load_model(again.initial)
    frames = read_frames(again.train)
    found = evaluate_dataset(model, frames, tolerance=1e-10).predicted  # type: ignore[arg-type]
    for atoms, energy in zip(frames, found.energy.tolist(), strict=True):
        atoms.calc.results["energy"] = energy
    write(tmp_path / "own.extxyz", frames)
    again = replace(again, train=(str(tmp_path / "own.extxyz"),))
    moved = Experiment.from_config(again).model.state_dict()["reference"] - model.state_dict()["reference"]
    assert moved.abs().max() < 1e-4


def test_a_run_that_begins_with_a_model_begins_where_that_ended(config: TrainConfig, again: TrainConfig) -> None:
    again = replace(again, train=config.train, max_epochs=4)
    first = train(replace(config, output=f"{config.output}-anew")).log.read()[0]["validation"]["loss"]
    losses = [record["validation"]["loss"] for record in train(again).log.read()]
    assert losses[0] < first
    assert losses[-1] < losses[0]


def test_a_fresh_run_may_begin_with_the_best_model_of_the_run_it_replaces(again: TrainConfig, tmp_path: Path) -> None:
    train(replace(again, max_epochs=1))
    best = tmp_path / "again" / "best.safetensors"
    with pytest.raises(FileNotFoundError):
        train(replace(again, initial=str(tmp_path / "nowhere")), fresh=True)
    assert best.exists()
    train(replace(again, initial=str(best)), fresh=True)
    assert load_model(best).card["training"]["config"]["initial"] == "best.safetensors"


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
    assert str(tmp_path) not in str(card)


def test_distances_nearer_than_the_model_knew_are_seen_and_farther_ones_change_nothing(again: TrainConfig) -> None:
    frames = read_frames(again.train)
    model = load_model(again.initial)
    assert isinstance(model, DEQAttention)
    known = model.closest.clone()
    far, near = [atoms.copy() for atoms in frames], [atoms.copy() for atoms in frames]
    for factor, scaled in ((1.1, far), (0.8, near)):
        for atoms, frame in zip(scaled, frames, strict=True):
            atoms.set_cell(factor * atoms.cell, scale_atoms=bool(atoms.pbc.any()))
            atoms.positions *= factor if not atoms.pbc.any() else 1.0
            atoms.calc = SinglePointCalculator(
                atoms, energy=frame.get_potential_energy(), forces=np.ones((len(atoms), 3))
            )
    found = {
        name: Experiment.from_trained(again, load_model(again.initial), x, x)
        for name, x in (("far", far), ("near", near))
    }
    assert torch.equal(found["far"].model.state_dict()["closest"], known)
    lowered = found["near"].model.state_dict()["closest"] / known
    assert lowered.min() == pytest.approx(0.8, rel=1e-3)


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
    with pytest.raises(ValueError, match="is a Committee"):
        train(replace(again, initial=str(tmp_path / "two")))
    strange = read_frames(again.train)
    strange[0].numbers[0] = 79
    with pytest.raises(ValueError, match="training frames contain Au"):
        Experiment.from_trained(again, load_model(again.initial), strange, [])  # type: ignore[arg-type]
    assert not Path(again.output).exists()
