"""The checkpoint file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ase_andersonn.training.ema import WeightAverage
from ase_andersonn.training.report import MetricsLog
from ase_andersonn.training.state import gather, read_checkpoint, scatter, write_checkpoint


def test_tensors_and_state_come_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(3.0, dtype=torch.float64), "c": torch.arange(3).byte()}
    state = {"x": [1, None, 0.1 + 0.2], "y": {"ä": "Å"}}
    write_checkpoint(tmp_path / "c.safetensors", tensors, state)
    found, found_state = read_checkpoint(tmp_path / "c.safetensors")
    assert found_state == state
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"a": torch.ones(3)}, {"step": 1})
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr("ase_andersonn.training.state.save", fail)
        else:
            patch.setattr(os, where, fail)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(path, {"a": torch.zeros(3)}, {"step": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
    write_checkpoint(path, {"a": torch.zeros(3)}, {"step": 2})
    assert read_checkpoint(path)[1] == {"step": 2}


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of a training run"):
        read_checkpoint(tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match="no checkpoint of a training run"):
        read_checkpoint(tmp_path / "text")


def test_the_optimiser_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def make() -> tuple[nn.Sequential, torch.optim.AdamW, WeightAverage]:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        groups = [{"params": [p]} for p in module.parameters()]
        return module, torch.optim.AdamW(groups, lr=0.1), WeightAverage(module, 0.9)

    def step(run: tuple[nn.Sequential, torch.optim.AdamW, WeightAverage], seed: int) -> None:
        module, optimizer, average = run
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
        average.update(module)

    def parts(run: tuple[nn.Sequential, torch.optim.AdamW, WeightAverage]) -> tuple[Any, ...]:
        return run[0], dict(run[0].named_parameters()), *run[1:]

    whole = make()
    for seed in range(6):
        step(whole, seed)
    half = make()
    for seed in range(3):
        step(half, seed)
    write_checkpoint(tmp_path / "c", gather(*parts(half)), {"updates": half[2].updates})
    resumed = make()
    tensors, state = read_checkpoint(tmp_path / "c")
    scatter(tensors, *parts(resumed))
    resumed[2].updates = state["updates"]
    for seed in range(3, 6):
        step(resumed, seed)
    expected, found = gather(*parts(whole)), gather(*parts(resumed))
    assert expected.keys() == found.keys()
    for name in expected.keys() - {"random/cpu"}:
        assert torch.equal(expected[name], found[name]), name


def test_metrics_written_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    size = log.write({"epoch": 1})
    log.write({"epoch": 2})
    log.truncate(size)
    log.write({"epoch": 2, "again": True})
    assert log.read() == [{"epoch": 1}, {"epoch": 2, "again": True}]
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == log.read()


def test_runs_of_other_versions_are_refused() -> None:
    model = nn.Linear(2, 3)
    optimizer, average = torch.optim.Adam(model.parameters()), WeightAverage(model, 0.9)
    run = model, dict(model.named_parameters()), optimizer, average
    tensors = gather(*run)
    with pytest.raises(ValueError, match="another version"):
        scatter({**tensors, "optimizer/mean/weight": torch.zeros(3, 2)}, *run)
    with pytest.raises(ValueError, match="another version"):
        scatter({**tensors, "model/weight": torch.zeros(3, 4)}, *run)
