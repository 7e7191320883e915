"""Training of classifiers: tables, division, metrics, calibration, runs that learn, resume exactly and end early."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import write
from torch import Tensor
from typer.testing import CliRunner

from ase_andersonn.checkpoints.checkpoint import load_classifier
from ase_andersonn.classifier import Prediction, StructureClassifier
from ase_andersonn.cli import app
from ase_andersonn.config import write_config
from ase_andersonn.labels import ELECTRONIC, LabelSet
from ase_andersonn.training.classification import ClassifierTrainConfig, train_classifier, trainer
from ase_andersonn.training.classification.calibration import fit_novelty, fit_temperature
from ase_andersonn.training.classification.data import ShuffledBatches, split
from ase_andersonn.training.classification.metrics import area_under_curve, calibration_error, class_metrics
from ase_andersonn.training.classification.table import Entry, read_entries
from ase_andersonn.training.classification.trainer import ClassifierTrainer, build_model, class_weights, train_ensemble
from ase_andersonn.training.run_checkpoint import read_checkpoint

SMALL = {
    "cutoff": 3.5, "n_radial": 4, "l_max": 1, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2,
    "n_hidden": 16, "n_pooled": 8, "n_features": 8,
}  # fmt: skip
SALTS = ("NaCl", "KBr", "MgO", "LiF", "CaO", "NaBr")
METALS = ("Cu", "Ni", "Al", "Ag", "Pt", "Au", "Pd", "Rh")


def crystals(n: int = 24, seed: int = 0) -> list[Atoms]:
    """Metals without a gap, salts with one that falls with the lattice constant."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        a = rng.uniform(4.0, 6.0)
        if k % 2:
            atoms = bulk(SALTS[k % len(SALTS)], "rocksalt", a)
            atoms.info["value"] = round(10.0 - 1.5 * a, 3)
        else:
            atoms = bulk(METALS[k % len(METALS)], "fcc", a)
            atoms.info["value"] = 0.0
        found.append(atoms)
    return found


@pytest.fixture
def config(tmp_path: Path) -> ClassifierTrainConfig:
    """A run of three epochs with a few steps each."""
    write(tmp_path / "crystals.extxyz", crystals())
    return ClassifierTrainConfig(
        train=(str(tmp_path / "crystals.extxyz"),),
        output=str(tmp_path / "run"),
        validation_fraction=0.2,
        split_by="none",
        model=SMALL,
        batch_size=8,
        block_atoms=8,
        max_epochs=3,
        ema_decay=0.9,
        device="cpu",
    )


# Tables


def test_all_kinds_of_tables_say_the_same(tmp_path: Path) -> None:
    frames = crystals(6)
    values = [atoms.info["value"] for atoms in frames]
    write(tmp_path / "frames.extxyz", frames)
    with connect(tmp_path / "frames.db") as database:
        for atoms in frames:
            database.write(atoms, key_value_pairs={"value": atoms.info["value"]})
    with open(tmp_path / "frames.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "value"])
        for k, atoms in enumerate(frames):
            write(tmp_path / f"{k}.cif", atoms)
            writer.writerow([f"{k}.cif", values[k]])
    for name in ("frames.extxyz", "frames.db", "frames.csv"):
        entries = read_entries([str(tmp_path / name)], ELECTRONIC, value="value", path="path")
        assert [entry.value for entry in entries] == pytest.approx(values)
        assert [entry.target for entry in entries] == [ELECTRONIC.label_of(value) for value in values]
        assert [len(entry.atoms) for entry in entries] == [len(atoms) for atoms in frames]


def test_labels_may_be_named(tmp_path: Path) -> None:
    frames = crystals(4)
    for atoms in frames:
        atoms.info["kind"] = ELECTRONIC.labels[ELECTRONIC.label_of(atoms.info.pop("value"))]
    write(tmp_path / "frames.extxyz", frames)
    entries = read_entries([str(tmp_path / "frames.extxyz")], ELECTRONIC, value="kind", path="path")
    assert [ELECTRONIC.labels[entry.target] for entry in entries] == [atoms.info["kind"] for atoms in frames]
    assert all(np.isnan(entry.value) for entry in entries)


@pytest.mark.parametrize(
    ("value", "message"), [("glass", "neither a number nor one of metal"), (-1.0, "below 0.0"), (None, "no band gap")]
)
def test_structures_without_a_label(tmp_path: Path, value: Any, message: str) -> None:
    atoms = bulk("Cu")
    atoms.info = {} if value is None else {"value": value}
    write(tmp_path / "frames.extxyz", [bulk("Cu")] if value is None else [atoms])
    with pytest.raises(ValueError, match=message) as caught:
        read_entries([str(tmp_path / "frames.extxyz")], ELECTRONIC, value="value", path="path")
    assert "frame 0" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.cif", "line 3 has no 'path' or no 'gap'"),
        (",0.5", "line 3 has no 'path'"),
        ("none.cif,0.5", r"line 3: .*none\.cif"),
    ],
)
def test_a_line_that_is_not_whole_is_named(line: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.cif", bulk("Cu"))
    (tmp_path / "table.csv").write_text(f"path,gap\na.cif,0.0\n{line}\n", encoding="utf-8")
    with pytest.raises((ValueError, OSError), match=message):
        read_entries([str(tmp_path / "table.csv")], ELECTRONIC, value="gap", path="path")


def test_a_table_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,gap\na.cif,1\n")
    with pytest.raises(ValueError, match=r"no column 'path', 'value'; it has file, gap"):
        read_entries([str(tmp_path / "t.csv")], ELECTRONIC, value="value", path="path")


@pytest.mark.parametrize("by", ["formula", "system", "none"])
def test_what_is_alike_stays_together(by: Any) -> None:
    entries = [Entry(atoms, 0, 0.0, "") for atoms in crystals(60)]
    train, held_out = split(entries, 0.25, by, 1)
    assert len(train) + len(held_out) == 60
    assert 15 <= len(held_out) <= 25
    formulas = [{e.atoms.get_chemical_formula(empirical=True) for e in part} for part in (train, held_out)]
    assert (not formulas[0] & formulas[1]) == (by != "none")
    again = split(entries, 0.25, by, 1)
    assert [id(e) for e in again[1]] == [id(e) for e in held_out]


def test_batches_hold_every_sample_once() -> None:
    batches = ShuffledBatches(20, 6, 0)
    drawn = [i for batch in batches.epoch(3) for i in batch]
    assert len(drawn) == len(set(drawn)) == 18
    assert batches.epoch(3) == batches.epoch(3) != batches.epoch(4)
    assert ShuffledBatches(3, 6, 0).epoch(0)[0].__len__() == 3


# Metrics and calibration


def test_metrics_by_hand() -> None:
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    metrics = class_metrics(p, torch.tensor([0, 1, 1, 0]))
    assert metrics.confusion == [[2, 0], [1, 1]]
    assert metrics.accuracy == 0.75
    assert metrics.balanced_accuracy == 0.75
    assert metrics.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics.nll == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.9]).mean())
    assert metrics.calibration_error == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    assert metrics.auc == 1.0
    with pytest.raises(ValueError, match="no structures"):
        class_metrics(p[:0], torch.tensor([], dtype=torch.int64))


def test_area_under_curve_is_the_share_of_ordered_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 10, (50,), generator=generator).double()
    positive = torch.rand(50, generator=generator) > 0.6
    pairs = score[positive][:, None] - score[~positive]
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
    assert area_under_curve(score, positive) == pytest.approx(float(expected))
    assert np.isnan(area_under_curve(score, positive & False))


def test_a_few_right_answers_are_no_certainty() -> None:
    torch.manual_seed(0)
    targets = torch.randint(2, (200,))
    logits = torch.randn(200, 2) + 50.0 * torch.nn.functional.one_hot(targets, 2)
    confidence = (logits / fit_temperature(logits, targets)).softmax(1).amax(1)
    assert confidence.mean() == pytest.approx(1.0 - 1.0 / 202, abs=1e-3)


def test_the_temperature_is_recovered() -> None:
    torch.manual_seed(0)
    logits = 2.0 * torch.randn(20000, 3)
    targets = torch.multinomial(logits.softmax(1), 1)[:, 0]
    for factor in (0.3, 1.0, 4.0):
        temperature = fit_temperature(factor * logits, targets)
        assert temperature == pytest.approx(factor, rel=0.05)
        assert calibration_error((factor * logits / temperature).softmax(1), targets) < 0.015


@pytest.mark.parametrize(("n", "times"), [(2000, 1e6), (2000, 1e-6)])
def test_the_temperature_stays_between_a_twentieth_and_twenty(n: int, times: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(n, 2)
    targets = torch.multinomial((2.0 * logits).softmax(1), 1)[:, 0]
    assert fit_temperature(times * logits, targets) == pytest.approx(np.exp(3.0 if times > 1 else -3.0), rel=1e-6)


def test_novelty_is_the_distance_in_standard_deviations(config: ClassifierTrainConfig) -> None:
    """sqrt((x - m) C^-1 (x - m)) with C the covariance and 1 % of its mean variance, over the 99th percentile."""
    model = build_model(config)
    torch.manual_seed(0)
    x = torch.randn(400, 8, dtype=torch.float64) * torch.logspace(-3, 1, 8, dtype=torch.float64) + 3.0
    fit_novelty(model, x[:300].float(), x[300:].float())
    off = x - x[:300].mean(0)
    covariance = off[:300].T @ off[:300] / 300
    covariance += 0.01 * covariance.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    distance = (off * torch.linalg.solve(covariance, off.T).T).sum(1).sqrt()
    expected = distance / distance[300:].quantile(0.99)
    torch.testing.assert_close(model.out_of_distribution(x.float()).double(), expected, rtol=1e-3, atol=1e-4)
    fit_novelty(model, x[:300].float(), x[:0].float())
    expected = distance / distance[:300].quantile(0.99)
    torch.testing.assert_close(model.out_of_distribution(x.float()).double(), expected, rtol=1e-3, atol=1e-4)


def test_one_in_a_hundred_is_unusual(config: ClassifierTrainConfig) -> None:
    model = build_model(config)
    torch.manual_seed(0)
    mix = torch.randn(8, 8)
    x: Tensor = torch.randn(6000, 8) @ mix + 3.0
    fit_novelty(model, x[:5000], x[5000:])
    assert (model.out_of_distribution(x[5000:]) > 1.0).float().mean() == pytest.approx(0.01, abs=0.002)
    assert (model.out_of_distribution(x[5000:] + 20.0) > 1.0).all()


def test_class_weights_have_mean_one() -> None:
    targets = torch.tensor([0] * 8 + [1] * 2)
    assert torch.allclose(class_weights(targets, 2, 0.0), torch.ones(2))
    full = class_weights(targets, 2, 1.0)
    assert full[targets].mean() == pytest.approx(1.0)
    assert full[1] / full[0] == pytest.approx(4.0)


# Runs


CLOCK = ("minutes", "seconds", "output", "metrics_size", "metrics_sha256")


def without_clock(value: Any) -> Any:
    return {k: without_clock(v) for k, v in value.items() if k not in CLOCK} if isinstance(value, dict) else value


class Killed(Exception):
    """Stands for the death of the process."""


class MortalTrainer(ClassifierTrainer):
    """Dies after some steps, without a chance to save anything."""

    steps_left = 0

    def step(self, indices: list[int]) -> None:
        if self.steps_left == 0:
            raise Killed
        self.steps_left -= 1
        super().step(indices)


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_equals_an_uninterrupted_one(config: ClassifierTrainConfig, tmp_path: Path) -> None:
    config = replace(config, checkpoint_minutes=0.0, max_epochs=2)
    whole = train_classifier(replace(config, output=str(tmp_path / "whole")))
    mortal = MortalTrainer(config)
    mortal.steps_left = 3
    with pytest.raises(Killed):
        mortal.fit()
    train_classifier(config, resume=True)
    tensors, state = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    other, other_state = read_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    assert tensors.keys() == other.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], other[name])] == []
    assert without_clock(state) == without_clock(other_state)
    first, second = (load_classifier(tmp_path / x / "model.safetensors").state_dict() for x in ("run", "whole"))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
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
    labels = LabelSet("gap", ("none", "some"), (0.5,), "eV")
    trainer = train_classifier(replace(config, labels=labels, max_epochs=1))
    assert load_classifier(trainer.folder / "model.safetensors").labels == labels
    with pytest.raises(ValueError, match="have one label"):
        ClassifierTrainer(replace(config, labels=LabelSet("gap", ("a", "b"), (100.0,), "eV")))


def test_the_command_trains_an_ensemble(config: ClassifierTrainConfig, tmp_path: Path) -> None:
    write_config(replace(config, max_epochs=1), tmp_path / "config.yaml")
    result = CliRunner().invoke(app, ["train-classifier", str(tmp_path / "config.yaml"), "--seeds", "2"])
    assert result.exit_code == 0, result.output
    ensemble = tmp_path / "run" / "ensemble"
    assert [path.name for path in sorted(ensemble.glob("*.safetensors"))] == [
        "seed-0.safetensors",
        "seed-1.safetensors",
    ]
    assert StructureClassifier(ensemble, device="cpu").predict(bulk("Cu")).spread > 0.0
    assert train_ensemble(replace(config, max_epochs=1), 2, resume=True) == []
    again = CliRunner().invoke(app, ["train-classifier", str(tmp_path / "config.yaml"), "--seeds", "2"])
    assert again.exit_code == 1
    assert "--resume" in again.output
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
    monkeypatch.setattr(trainer, "ClassifierTrainer", MortalTrainer)
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
