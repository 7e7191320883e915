"""Models as files: the same bits come back, and a file that is not what was written is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from safetensors import safe_open
from safetensors.torch import save
from small_models import SIZES, silicon, small_model

from ase_andersonn import AndersoNN, StructureClassifier, load_model, save_model
from ase_andersonn.checkpoints.checkpoint import content_hash, load_classifier
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.classifiers.image_classifier import ImageClassifier, ImageClassifierConfig
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.pretrained.catalog import model_files, models_of, packaged_models
from ase_andersonn.structures.graph import graph_from_atoms

CARD = {"description": "random weights", "elements": ["H", "C"], "errors": {"energy": 1.5}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(small_model(dtype=torch.float32), path, CARD)
    return path


def test_round_trip_bit_for_bit(saved: Path) -> None:
    model, loaded = small_model(dtype=torch.float32), load_model(saved)
    assert loaded.card == CARD
    assert loaded.config == model.config
    assert loaded.elements == model.elements
    states = model.state_dict(), loaded.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(states[0][name].dtype == states[1][name].dtype for name in states[0])
    graph = graph_from_atoms(silicon(), 4.0)
    first, second = (evaluate(m, graph, forces=True) for m in (model, loaded))
    assert torch.equal(first.energies, second.energies)
    assert first.forces is not None
    assert second.forces is not None
    assert torch.equal(first.forces, second.forces)


def test_saving_again_gives_the_same_content(saved: Path, tmp_path: Path) -> None:
    save_model(load_model(saved), tmp_path / "again.safetensors")
    headers = []
    for path in (saved, tmp_path / "again.safetensors"):
        with safe_open(path, framework="pt") as file:
            headers.append(file.metadata())
    assert headers[0] == headers[1]


def test_loaded_models_are_ready_for_use(saved: Path) -> None:
    state = torch.get_rng_state()
    loaded = load_model(str(saved))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_double_precision_is_kept_in_the_file_and_loads_as_single(tmp_path: Path) -> None:
    save_model(small_model(), tmp_path / "double.safetensors")
    assert {p.dtype for p in load_model(tmp_path / "double.safetensors").parameters()} == {torch.float32}


def test_the_card_lies_beside_the_weights_for_people(saved: Path) -> None:
    text = json.loads(saved.with_suffix(".json").read_text())
    assert text["card"] == CARD
    assert text["config"]["cutoff"] == SIZES["cutoff"]
    assert text["architecture"] == "DEQAttention"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read as a model: .*Copy or create it again"):
        load_model(saved)


def rewritten(path: Path, changes: dict[str, str], weights: bool = False) -> None:
    """Write the file again as a whole, with other entries in its header or one other weight."""
    with safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **changes}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if weights:
        tensors["output"][0, 0] += 1e-6
    path.write_bytes(save(tensors, header))


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, True),
        ({"card": json.dumps({**CARD, "description": "the best model"})}, False),
        ({"config": json.dumps({"elements": [1, 6], **SIZES, "contraction": 0.9})}, False),
        ({"architecture": "EnergyModel"}, False),
        ({"sha256": "0" * 64}, False),
    ],
    ids=["weight", "card", "config", "architecture", "hash"],
)
def test_an_altered_file_is_refused(saved: Path, changes: dict[str, str], weights: bool) -> None:
    rewritten(saved, changes, weights)
    with pytest.raises(ValueError, match="was altered: its content has the hash"):
        load_model(saved)


def test_any_flipped_bit_is_noticed(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    for place in range(8, len(data), len(data) // 25):
        flipped = data.copy()
        flipped[place] ^= 1
        saved.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"was altered|cannot be read|is not a model of this package"):
            load_model(saved)


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"weight": torch.zeros(3)}, {"format": "pt"}))
    with pytest.raises(ValueError, match="is not a model of this package: its format is 'pt', not 'ase-andersonn-2'"):
        load_model(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(small_model().state_dict(), path)
    with pytest.raises(ValueError, match="cannot be read as a model"):
        load_model(path)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.pt does not end in .safetensors"):
        save_model(small_model(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'mlearn-pbe'\?"):
        load_model("MLEARN_PBE")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'organic'\?"):
        load_model("organik.safetensors")
    with pytest.raises(
        FileNotFoundError, match="there is no model 'water': neither a file of that name nor a packaged"
    ):
        load_model("water")
    with pytest.raises(
        FileNotFoundError, match=r"electronic is a classifier.* use StructureClassifier\('electronic'\)"
    ):
        load_model("electronic")
    with pytest.raises(FileNotFoundError, match=r"the folder .* holds no \.safetensors files"):
        load_model(tmp_path)


def test_a_write_that_fails_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, files = saved.read_bytes(), set(saved.parent.iterdir())

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save_model(small_model(1), saved, {})
        assert saved.read_bytes() == old
        assert set(saved.parent.iterdir()) == files


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from small_models import small_model
from ase_andersonn import save_model
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
save_model(small_model(1), sys.argv[1], {})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_write_that_is_killed_leaves_the_old_model(saved: Path) -> None:
    old = saved.read_bytes()
    here = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", KILLED, str(saved), here], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    assert saved.read_bytes() == old
    assert load_model(saved).card == CARD


# Files whose hash is right and whose content is not


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


@pytest.mark.parametrize("given", ["", "  ", "a\0b", "x" * 5000])
@pytest.mark.parametrize("load", [load_model, AndersoNN, load_classifier, StructureClassifier])
def test_names_that_name_nothing(
    saved: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Any], given: str
) -> None:
    monkeypatch.chdir(saved.parent)  # where there is a model
    with pytest.raises(FileNotFoundError, match=r"model.*; give the path|there is no model .*Give the path"):
        load(given)


def test_folders_without_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for given in (".", "empty", tmp_path / "empty", "./empty/"):
        with pytest.raises(FileNotFoundError, match=r"the folder .* holds no .safetensors files"):
            AndersoNN(given)


def test_the_hash_depends_on_names_shapes_types_and_values() -> None:
    header = {"format": "f", "architecture": "a", "config": "c", "card": "d"}
    zero = torch.zeros(2, 3)
    variants: list[dict[str, torch.Tensor]] = [
        {"a": zero},
        {"b": zero},
        {"a": zero.view(3, 2)},
        {"a": zero.to(torch.int32)},
        {"a": zero + 1},
    ]
    hashes = {content_hash(tensors, header) for tensors in variants}
    assert len(hashes) == len(variants)
    assert content_hash({"a": zero}, {**header, "card": "e"}) not in hashes


@pytest.mark.parametrize("name", packaged_models())
def test_packaged_models_load(name: str) -> None:
    model = load_model(name)
    assert model.card
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_models_of_elements_are_named() -> None:
    assert "graphene" in models_of([6])
    assert models_of([29, 14]) == ["mlearn-pbe", "mlearn-pbe-large", "universal"]
    assert models_of([6, 79]) == ["universal"]
    assert models_of([6, 84]) == []  # no one knows polonium


@pytest.mark.parametrize(
    ("model", "formula", "text"),
    [
        (
            "mlearn-pbe",
            "C2",
            "contains C; this model knows Li, Si, Ni, Cu, Mo. Packaged models .* C: .*graphene",
        ),
        ("graphene", "CuLi", "contains Li, Cu; this model knows C. Packaged models that know Li, Cu: mlearn-pbe"),
        ("graphene", "CAu", "contains Au; this model knows C. Packaged models that know Au: universal"),
        ("graphene", "CPo", "contains Po; this model knows C. No packaged model knows Po: train one"),
    ],
)
def test_an_unknown_element_names_the_models_that_know_it(model: str, formula: str, text: str) -> None:
    atoms = Atoms(formula, positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]], calculator=AndersoNN(model, compile=False))
    with pytest.raises(ValueError, match=text):
        atoms.get_potential_energy()


def test_a_folder_that_holds_no_model_does_not_hide_a_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "graphene").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("graphene").elements == (6,)


def test_what_lies_under_a_path_comes_before_what_is_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graphene").mkdir()
    for name in ("graphene/a", "graphene/b", "graphene-alone"):
        save_model(small_model(dtype=torch.float32), tmp_path / f"{name}.safetensors")
    save_model(small_model(1, dtype=torch.float32), tmp_path / "graphene.safetensors")
    monkeypatch.chdir(tmp_path)
    for given in ("graphene", "./graphene", Path("graphene"), tmp_path / "graphene"):
        assert [file.parent.name for file in model_files(given)] == ["graphene", "graphene"]
    for given in ("classifiers", "nothing/graphene"):
        with pytest.raises(FileNotFoundError, match="there is no model"):
            load_model(given)
