"""Training runs of classifiers: the loss falls, runs resume to the same bits and stop early."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import bulk
from ase.io import write
from command_line import run
from crystals import SMALL, crystals
from interrupted import Killed, assert_same_run, killed_after

from ase_andersonn.checkpoints.checkpoint import load_classifier
from ase_andersonn.classifier import Prediction, StructureClassifier
from ase_andersonn.config import from_dict, write_config
from ase_andersonn.labels import ELECTRONIC, LabelSet
from ase_andersonn.training.classification import ClassifierTrainConfig, train_classifier, trainer
from ase_andersonn.training.classification.trainer import ClassifierTrainer, build_model, train_ensemble


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_equals_an_uninterrupted_one(config: ClassifierTrainConfig, tmp_path: Path) -> None:
    config = replace(config, checkpoint_minutes=0.0, max_epochs=2)
    whole = train_classifier(replace(config, output=str(tmp_path / "whole")))
    with pytest.raises(Killed):
        killed_after(3, ClassifierTrainer(config)).fit()
    train_classifier(config, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole", "model.safetensors", load_classifier)
    assert whole.finished


def test_a_run_learns_and_leaves_its_results(config: ClassifierTrainConfig, tmp_path: Path) -> None:
    write(tmp_path / "test.extxyz", crystals(20, seed=1))
    config = replace(config, max_epochs=12, batch_size=4, model=SMALL | {"dropout": 0.0}, learning_rate=1e-2)
    config = replace(config, test={"fresh": str(tmp_path / "test.extxyz")})
    trainer = train_classifier(config)
    records = trainer.log.read()
    assert records[-1]["train"]["loss"] < 0.8 * records[0]["train"]["loss"]
    names = ("learning_curve", "confusion", "confusion_fresh", "calibration", "calibration_fresh")
    assert all((tmp_path / "run" / f"{name}.png").stat().st_size > 1000 for name in names)
    result = json.loads((tmp_path / "run" / "test.json").read_text())["fresh"]
    assert result["accuracy"] > 0.7
    model = load_classifier(tmp_path / "run" / "model.safetensors")
    assert model.card["test"]["fresh"] == result
    assert model.card["periodic_directions"] == [3]
    assert str(tmp_path) not in json.dumps(model.card)
    answers = StructureClassifier(model, device="cpu").predict_many(crystals(20, seed=1), progress_bar=False)
    right = [
        a.name == ELECTRONIC.labels[ELECTRONIC.label_of(atoms.info["value"])]
        for a, atoms in zip(answers, crystals(20, seed=1), strict=True)
        if isinstance(a, Prediction)
    ]
    assert sum(right) == round(20 * result["accuracy"])


def test_a_run_ends_when_its_patience_does(config: ClassifierTrainConfig) -> None:
    trainer = train_classifier(replace(config, max_epochs=50, patience=2, learning_rate=1e-12))
    assert trainer.position.epoch < 50
    assert trainer.position.epoch - trainer.position.best_epoch == 2
    assert (trainer.folder / "model.safetensors").exists()


def test_a_run_without_validation(config: ClassifierTrainConfig) -> None:
    trainer = train_classifier(replace(config, max_epochs=1, validation_fraction=0.0))
    assert load_classifier(trainer.folder / "model.safetensors").temperature == 1.0


def test_own_labels(config: ClassifierTrainConfig, tmp_path: Path) -> None:
    """A set of labels is a few lines of a config."""
    labels = LabelSet("gap", ("none", "some"), (0.5,), "eV")
    write_config(replace(config, max_epochs=1), tmp_path / "config.yaml")
    data = yaml.safe_load((tmp_path / "config.yaml").read_text())
    data["labels"] = {"name": "gap", "labels": ["none", "some"], "thresholds": [0.5], "unit": "eV"}
    trainer = train_classifier(from_dict(ClassifierTrainConfig, data))
    assert load_classifier(trainer.folder / "model.safetensors").labels == labels
    with pytest.raises(ValueError, match="have one label"):
        ClassifierTrainer(replace(config, labels=LabelSet("gap", ("a", "b"), (100.0,), "eV")))


def test_the_command_trains_an_ensemble(config: ClassifierTrainConfig, tmp_path: Path) -> None:
    write_config(replace(config, max_epochs=1), tmp_path / "config.yaml")
    command = ("train-classifier", tmp_path / "config.yaml", "--seeds", 2)
    code, output = run(*command)
    assert code == 0, output
    ensemble = tmp_path / "run" / "ensemble"
    assert [path.name for path in sorted(ensemble.glob("*.safetensors"))] == [
        "seed-0.safetensors",
        "seed-1.safetensors",
    ]
    assert StructureClassifier(ensemble, device="cpu").predict(bulk("Cu")).std > 0.0
    assert train_ensemble(replace(config, max_epochs=1), 2, resume=True) == []
    code, output = run(*command)
    assert code == 1
    assert "--resume" in output
    with pytest.raises(ValueError, match="model"):
        train_ensemble(replace(config, max_epochs=1, model=SMALL | {"dropout": 0.4}), 2, resume=True)
    assert len(train_ensemble(replace(config, max_epochs=2, seed=1), 1, fresh=True)) == 1
    assert [path.name for path in ensemble.glob("*.safetensors")] == ["seed-1.safetensors"]


def test_a_fresh_run_leaves_nothing_of_the_old_one(
    config: ClassifierTrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train_classifier(replace(config, max_epochs=1)).folder
    left = [folder / name for name in ("best.safetensors", "model.safetensors")]
    assert all(path.exists() for path in left)
    monkeypatch.setattr(trainer, "ClassifierTrainer", lambda *a, **k: killed_after(0, ClassifierTrainer(*a, **k)))
    with pytest.raises(Killed):
        train_classifier(replace(config, max_epochs=1), fresh=True)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ()}, "train is empty"),
        ({"max_epochs": 1, "max_minutes": 1.0}, "one of the two"),
        ({"class_balance": 2.0}, "class_balance is 2"),
        ({"labels": "colour"}, "no label set 'colour'"),
        ({"model": {"labels": "electronic"}}, "beside `model`"),
    ],
)
def test_configs_that_make_no_run(config: ClassifierTrainConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(config, **change)


def test_a_model_config_with_an_unknown_key(config: ClassifierTrainConfig) -> None:
    with pytest.raises(ValueError, match="did you mean 'n_channels'"):
        build_model(replace(config, model={"n_chanels": 8}))
