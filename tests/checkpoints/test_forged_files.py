"""Model files with a correct hash and invalid content: loading raises an error and allocates nothing large."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from ase_andersonn import StructureClassifier, load_model, save_model
from ase_andersonn.checkpoints.checkpoint import content_hash, load_classifier
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.classifiers.image_classifier import ImageClassifier, ImageClassifierConfig
from ase_andersonn.lattice.model import GridConfig, GridModel


def forged(path: Path, entries: dict[str, Any], tensors: dict[str, torch.Tensor | None] | None = None) -> None:
    """The file with other entries and tensors (None takes one away), and the hash that belongs to them."""
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(header["config"]) | entries.pop("into_config", {})
    header |= {"config": json.dumps(config)} | entries
    header = {name: value for name, value in header.items() if value is not None}
    found = {name: tensor for name, tensor in {**found, **(tensors or {})}.items() if tensor is not None}
    header["sha256"] = content_hash(found, header)
    path.write_bytes(save(found, header))


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "wide": ({"n_channels": 200_000}, r"config.n_channels = 200000, more than all the numbers that it holds"),
    "wider than it is": ({"n_channels": 900}, "does not hold the weights of its config, .* instead of"),
    "wide in all": ({"n_channels": 900, "n_hidden": 900, "n_edge": 900, "n_token": 900}, "instead of"),
    "huge": ({"n_channels": 10**400}, "config.n_channels = 1000"),
    "negative": ({"n_channels": -3}, "makes no model: n_channels is -3"),
    "hugely negative": ({"n_hidden": -(10**12)}, "more than all the numbers"),
    "words": ({"n_channels": "many"}, "makes no model: .*n_channels"),
    "a list": ({"n_channels": [12]}, "makes no model: .*n_channels"),
    "nothing": ({"n_channels": None}, "makes no model: .*n_channels"),
    "fraction": ({"n_channels": 12.5}, "makes no model: .*n_channels"),
    "no number": ({"cutoff": float("nan")}, "config.cutoff = nan; it has to be finite"),
    "endless": ({"cutoff": float("inf")}, "config.cutoff = inf; it has to be finite"),
    "far": ({"cutoff": 1e6}, "says cutoff = 1000000.0; it has to be in 0 to 50"),
    "unknown": ({"n_chanels": 12}, "unknown key 'n_chanels'"),
    "elements": ({"elements": [1, 10**9]}, "more than all the numbers"),
    "no elements": ({"elements": []}, "makes no model: elements is"),
    "degrees": ({"l_max": 60}, "makes no model: l_max is 60"),
    "another model": ({"n_message": 5}, "is missing"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_is_not_of_the_weights_is_refused(saved: Path, case: str) -> None:
    config, text = CONFIGS[case]
    forged(saved, {"into_config": config})
    with pytest.raises(ValueError, match=f"model.safetensors.*{text}"):
        load_model(saved)


ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "list as card": ({"card": "[1, 2]"}, "the card of .* is a list; it has to be a JSON object"),
    "text as card": ({"card": '"good"'}, "the card of .* is a str"),
    "no card": ({"card": None}, "has no card in its header"),
    "broken card": ({"card": "{"}, "the card of .* is not valid JSON"),
    "deep card": ({"card": '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"}, "the card of .* is not valid JSON"),
    "combinations": (
        {"card": '{"combinations": 3}'},
        "combinations in the card .* a list of lists of atomic",
    ),
    "pairs": ({"card": '{"pairs": [[1, 8], [1, 6, 8]]}'}, "pairs in the card .* a list of pairs of atomic numbers"),
    "pairs of names": ({"card": '{"pairs": [["H", "O"]]}'}, "pairs in the card"),
    "min_atoms": ({"card": '{"min_atoms": "two"}'}, "min_atoms in the card of .* has to be a number of atoms"),
    "periodic": ({"card": '{"periodic": [1, "no"]}'}, "periodic in the card"),
    "isolated": ({"card": '{"isolated": {"1": 2}}'}, "isolated in the card"),
    "limits": ({"card": '{"limits": "none"}'}, "limits in the card of .* a list of sentences"),
    "no config": ({"config": None}, "has no config in its header"),
    "list as config": ({"config": "[]"}, "the config of .* is a list"),
    "deep config": ({"config": "[" * 50_000}, "the config of .* is not valid JSON"),
    "no architecture": ({"architecture": None}, "holds a , not a Potential"),
    "abstract": ({"architecture": "EnergyModel"}, "holds a EnergyModel, not a Potential"),
    "committee": ({"architecture": "Committee"}, "says it is a committee, which is a folder"),
    "a classifier": ({"architecture": "GraphClassifier"}, "holds a GraphClassifier, not a Potential"),
    "another network": ({"architecture": "GridModel"}, "makes no model: unknown key"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_entries_that_are_none_are_refused(saved: Path, case: str) -> None:
    entries, text = ENTRIES[case]
    forged(saved, entries)
    with pytest.raises(ValueError, match=text):
        load_model(saved)


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"output": None}, "output is missing"),
    "one of the clouds": (
        {"environment_mean": torch.zeros(5, 24)},
        "it holds environment_mean without environment_whitening, environment_max, which belong",
    ),
    "two of the clouds": (
        {"environment_whitening": torch.ones(5, 24, 24), "environment_max": torch.ones(5)},
        "it holds environment_whitening, environment_max without environment_mean, which belong together",
    ),
    "unknown": ({"more": torch.zeros(2)}, "more is unknown"),
    "shape": ({"output": torch.zeros(3, 3)}, r"output has the shape \(3, 3\) instead of"),
    "integers": ({"output": torch.zeros(5, 12, dtype=torch.int64)}, "output is torch.int64 instead of torch.float32"),
    "half": ({"output": torch.zeros(5, 12, dtype=torch.bfloat16)}, "output of .* is of type BF16"),
    "nan": ({"cell.out.weight": torch.full((12, 12), float("nan"))}, "not finite .* in cell.out.weight: its training"),
    "infinite": ({"min_distance": torch.full((5, 5), float("inf"))}, "not finite .* in min_distance"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_weights_that_are_not_of_the_config_are_refused(saved: Path, case: str) -> None:
    tensors, text = TENSORS[case]
    forged(saved, {}, tensors)
    with pytest.raises(ValueError, match=f"model.safetensors.*{text}|{text}"):
        load_model(saved)


@pytest.mark.skipif(sys.platform == "win32", reason="resource")
def test_nothing_of_a_forged_size_is_allocated(saved: Path) -> None:
    """A square of this width takes 1.6 GB."""
    import resource

    forged(saved, {"into_config": {"n_channels": 20_000}}, {"more": torch.zeros(30_000)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"more is unknown; .* instead of \(20000, 20000\)|and \d+ more"):
        load_model(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e5, "kB, on macOS bytes"


@pytest.mark.parametrize(
    ("changes", "tensors", "text"),
    [
        ({"into_config": {"n_channels": 200_000}}, {}, "more than all the numbers"),
        ({"into_config": {"n_hidden": 700}}, {}, "instead of"),
        ({"into_config": {"max_steps": 10**9}}, {}, "config.max_steps"),
        ({"into_config": {"labels": "metals"}}, {}, "makes no model"),
        ({"into_config": {"labels": {"name": "x", "labels": []}}}, {}, "makes no model"),
        ({"card": "[]"}, {}, "the card of .* is a list"),
        ({"architecture": "DEQAttention"}, {}, "holds a DEQAttention, not a ClassifierModel"),
        ({}, {"temperature": torch.tensor(float("nan"))}, "not finite .* in temperature"),
        ({}, {"head.weight": None}, "head.weight is missing"),
    ],
)
@pytest.mark.parametrize("kind", ["graph", "image"])
def test_forged_classifiers_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], tensors: dict[str, Any], text: str
) -> None:
    path, small = tmp_path / "classifier.safetensors", {"n_channels": 8, "n_hidden": 8, "n_pooled": 8, "n_features": 8}
    model: Any = GraphClassifier(GraphClassifierConfig(**small))  # type: ignore[arg-type]
    if kind == "image":
        model = ImageClassifier(ImageClassifierConfig(**small))  # type: ignore[arg-type]
    save_model(model, path, {})
    assert load_classifier(path).labels == model.labels
    forged(path, dict(changes), tensors)
    with pytest.raises(ValueError, match=text):
        StructureClassifier(path)


@pytest.mark.parametrize("network", ["fully_connected", "convolutional", "equilibrium"])
def test_forged_grids_are_refused(tmp_path: Path, network: Any) -> None:
    path = tmp_path / "grid.safetensors"
    for change, text in (
        ({"n_layers": 900}, "says n_layers = 900, the file holds"),
        ({"context": 900}, "does not hold the weights|makes no model"),
        ({"n_hidden": 10**9}, "more than all the numbers"),
        ({"values": [-1, 0, "up"]}, "makes no model"),
    ):
        save_model(GridModel(GridConfig(network=network)), path, {})
        load_model(path)
        forged(path, {"into_config": change})
        with pytest.raises(ValueError, match=text):
            load_model(path)
