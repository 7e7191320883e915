"""Files of earlier formats: models give what they gave, runs go on as they would have.

`format-1` was written by version 0.1.0: small models with random weights and buffers, what they answered, and a
training run after its first of two epochs.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_models import small_model
from test_forged_files import forged

from ase_andersonn import AndersoNN, StructureClassifier, load_model, save_model
from ase_andersonn.checkpoints.migrations import migrate_run, tensor_name
from ase_andersonn.config import from_dict, read_config
from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.pretrained.catalog import FORMATS, read_header
from ase_andersonn.training import TrainConfig, train
from ase_andersonn.training.run_checkpoint import read_checkpoint, write_checkpoint

FIRST = Path(__file__).parent / "format-1"
ANSWERS = json.loads((FIRST / "answers.json").read_text())


def structure() -> Atoms:
    """The structure of `answers.json`."""
    atoms = bulk("Si", cubic=True)
    atoms.numbers[3] = 29
    atoms.positions[0] += [0.1, 0.05, -0.07]
    return atoms


def check_potential(path: Path, name: str) -> None:
    calc = AndersoNN(path, dtype="float64", tol=1e-13, compile=False, warm_start=False)
    assert calc.get_potential_energy(structure()) == pytest.approx(ANSWERS[name]["energy"], abs=1e-11)
    np.testing.assert_allclose(calc.get_forces(structure()), ANSWERS[name]["forces"], atol=1e-10)
    np.testing.assert_allclose(calc.diagnostics["extrapolation"], ANSWERS[name]["extrapolation"], rtol=1e-9)


def test_a_cartesian_model_without_tensors_is_an_attention_model(tmp_path: Path) -> None:
    """As it was written while a `DEQCartesian` could have `rank` 0."""
    path, model = tmp_path / "model.safetensors", small_model(n_bispectrum=0).float()
    save_model(model, path)
    config = json.loads(read_header(path)["config"])
    config = {key: value for key, value in config.items() if key not in ("n_bispectrum", "n_message")}
    config |= {"rank": 0, "n_tensors": 16, "n_products": 16, "correlation": 3}
    forged(path, {"architecture": "DEQCartesian", "config": json.dumps(config)})
    loaded = load_model(path)
    assert type(loaded) is DEQAttention
    assert loaded.config == model.config


@pytest.mark.filterwarnings("ignore:the structure is outside:UserWarning", "ignore:atoms:UserWarning")
@pytest.mark.parametrize("name", ["attention", "cartesian"])
def test_potentials_of_format_1(name: str, tmp_path: Path) -> None:
    path = FIRST / f"{name}.safetensors"
    assert read_header(path)["format"] == FORMATS[0]
    check_potential(path, name)
    model = load_model(path)
    assert {key: model.card.get(key) for key in ("isolated", "min_atoms", "lone", "smallest")} == {
        "isolated": [14],
        "min_atoms": 2,
        "lone": None,
        "smallest": None,
    }
    save_model(model, tmp_path / "again.safetensors")
    assert read_header(tmp_path / "again.safetensors")["format"] == FORMATS[-1]
    check_potential(tmp_path / "again.safetensors", name)


@pytest.mark.parametrize("name", ["graph-classifier", "image-classifier"])
def test_classifiers_of_format_1(name: str) -> None:
    found = StructureClassifier(FIRST / f"{name}.safetensors").predict(structure()).probabilities
    np.testing.assert_allclose(list(found.values()), ANSWERS[name], atol=1e-5)


def test_a_run_of_format_1_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FIRST / "run", tmp_path / "run")
    shutil.copy(FIRST / "frames.extxyz", tmp_path)
    monkeypatch.chdir(tmp_path)
    train(read_config(TrainConfig, "run/config.yaml"), resume=True)
    epochs = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in epochs] == [1, 2]
    assert epochs[1]["train"]["loss"] == pytest.approx(1.289836917351512, rel=1e-4)
    assert epochs[1]["validation"]["loss"] == pytest.approx(0.6908840182243492, rel=1e-4)
    tensors, state = read_checkpoint(Path("run/checkpoint.safetensors"))
    assert state["format"] == FORMATS[-1]
    assert migrate_run(tensors, state) == (tensors, state), "what is written is of the present format"


def test_a_stored_run_has_other_names(tmp_path: Path) -> None:
    """The migration is at work: nothing of format 1 is left under its old name, and nothing is lost."""
    tensors, state = read_checkpoint(FIRST / "run" / "checkpoint.safetensors")
    kinds = {name.split("/")[0] for name in tensors}
    assert kinds == {"model", "average", "learnt", "optimizer", "random"}
    old = {"telling", "hearing", "typical", "spread", "closest"}
    assert not old & {part for name in tensors for part in name.replace("/", ".").split(".")}
    assert state["sizes"]["n_message"] == 2 == state["config"]["model"]["n_message"]
    write_checkpoint(tmp_path / "c.safetensors", tensors, {**state, "format": FORMATS[-1]})
    again, _ = read_checkpoint(tmp_path / "c.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_keys_of_earlier_configs() -> None:
    sizes: dict[str, Any] = {"elements": (14,), "n_edge": 8}
    assert from_dict(DEQAttentionConfig, {**sizes, "n_told": 3}).n_message == 3
    with pytest.raises(ValueError, match="'n_told' and 'n_message' are the same key"):
        from_dict(DEQAttentionConfig, {**sizes, "n_told": 3, "n_message": 3})


def test_names_of_other_architectures_stay() -> None:
    assert tensor_name("DEQAttention", "spread") == "feature_std"
    assert tensor_name("DEQAttention", "attention.spread") == "attention.spread"
    assert tensor_name("GraphClassifier", "composition.spread") == "composition.std"
    assert tensor_name("MyModel", "telling.weight") == "telling.weight"
