"""Model files: round trips bit for bit, content hashes, writes that fail."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_models import CARD, SIZES, silicon, small_model

from ase_andersonn import load_model, save_model
from ase_andersonn.checkpoints.checkpoint import content_hash
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.structures.graph import graph_from_atoms


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


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.pt does not end in .safetensors"):
        save_model(small_model(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


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
from small_models import CARD, small_model
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
