"""Model files that were truncated, altered or written by others: loading raises an error."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from small_models import CARD, SIZES, small_model

from ase_andersonn import load_model


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
