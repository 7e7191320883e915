"""Models as files: the same bits come back, and a file that is not what was written is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from safetensors import safe_open
from safetensors.torch import save
from small_models import SIZES, silicon, small_model

from ase_andersonn import AndersoNN, load_model, save_model
from ase_andersonn.inputs.graph import graph_from_atoms
from ase_andersonn.models.checkpoint import content_hash
from ase_andersonn.models.derivatives import evaluate
from ase_andersonn.models.files import model_files, models_of, packaged_models

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
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read as a model: .*Copy or make it anew"):
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
        with pytest.raises(ValueError, match=r"was altered|cannot be read|is no model of this package"):
            load_model(saved)


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"weight": torch.zeros(3)}, {"format": "pt"}))
    with pytest.raises(ValueError, match="is no model of this package: its format is 'pt', not 'ase-andersonn-1'"):
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
    assert models_of([29, 14]) == ["mlearn-pbe", "mlearn-pbe-large"]
    assert models_of([6, 79]) == []


@pytest.mark.parametrize(
    ("model", "formula", "text"),
    [
        (
            "mlearn-pbe",
            "C2",
            "contains C; this model knows Li, Si, Ni, Cu, Mo. Packaged models .* C: .*graphene",
        ),
        ("graphene", "CuLi", "contains Li, Cu; this model knows C. Packaged models that know Li, Cu: mlearn-pbe"),
        ("graphene", "CAu", "contains Au; this model knows C. No packaged model knows Au: train one"),
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
