"""The checkpoint file."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from damage import accidents
from safetensors.torch import save, save_file
from torch import nn

from ase_andersonn.training.ema import WeightAverage
from ase_andersonn.training.report import MetricsLog
from ase_andersonn.training.run_checkpoint import (
    BLANK,
    CHECKSUM,
    KEY,
    load_state_tensors,
    own_random_numbers,
    random_states,
    read_checkpoint,
    state_tensors,
    write_checkpoint,
)


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
            patch.setattr("ase_andersonn.training.run_checkpoint.save", fail)
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
    write_checkpoint(tmp_path / "c", state_tensors(*parts(half)), {"updates": half[2].updates})
    resumed = make()
    tensors, state = read_checkpoint(tmp_path / "c")
    load_state_tensors(tensors, *parts(resumed))
    resumed[2].updates = state["updates"]
    for seed in range(3, 6):
        step(resumed, seed)
    expected, found = state_tensors(*parts(whole)), state_tensors(*parts(resumed))
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
    tensors = state_tensors(*run)
    with pytest.raises(ValueError, match="another version"):
        load_state_tensors({**tensors, "optimizer/mean/weight": torch.zeros(3, 2)}, *run)
    with pytest.raises(ValueError, match="another version"):
        load_state_tensors({**tensors, "model/weight": torch.zeros(3, 4)}, *run)


def test_every_damage_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    state = {"position": {"epoch": 3}, "said": f'"{CHECKSUM}":"{BLANK}"'}  # a text that looks like the checksum
    write_checkpoint(path, {"model/a": torch.randn(20, 3), "b": torch.tensor(2.0)}, state)
    for damage in accidents(path):
        with pytest.raises(ValueError, match=r"c\.safetensors is no checkpoint .* Put a copy .* --fresh") as caught:
            read_checkpoint(path)
        assert "codec" not in str(caught.value), damage
    assert read_checkpoint(path)[1] == state


def test_a_checkpoint_of_before_there_were_checksums_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "c").write_bytes(save({"a": torch.ones(1)}, {KEY: "{}"}))
    assert torch.equal(read_checkpoint(tmp_path / "c")[0]["a"], torch.ones(1))
    assert "no checksum" in caplog.text


def test_a_checkpoint_with_a_wrong_checksum(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(save({"a": torch.ones(1)}, {KEY: "{}", CHECKSUM: "1" * 64}))
    with pytest.raises(ValueError, match="its content does not match its checksum"):
        read_checkpoint(tmp_path / "c")


def test_metrics_that_were_changed_are_reported(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    size = log.write({"epoch": 1, "loss": 0.5})
    sha256 = log.sha256(size)
    log.check(size, sha256)
    log.write({"epoch": 2})  # after the checkpoint
    log.check(size, sha256)
    whole = log.path.read_bytes()
    for changed in (whole.replace(b"0.5", b"0.4"), whole[:5], b""):
        log.path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"metrics\.jsonl is not as the run left it.*remove it to go on"):
            log.check(size, sha256)
    log.path.unlink()
    log.check(size, sha256)


class OnGPU(nn.Module):
    """Stands for a model on a GPU that is not there."""

    def parameters(self, recurse: bool = True) -> Any:
        return iter([SimpleNamespace(device=torch.device("cuda", 1))])


def test_the_generator_of_the_gpu_is_seeded_saved_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    device, gpus = torch.device("cuda", 1), tuple(torch.Generator().manual_seed(k) for k in range(2))
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    before = [torch.default_generator.get_state(), gpus[0].get_state(), gpus[1].get_state()]

    def draw() -> list[float]:
        return [torch.rand(1).item(), torch.rand(1, generator=gpus[1]).item()]

    with own_random_numbers(device, 5, {}):
        draw()
        saved = state_tensors(OnGPU(), {}, torch.optim.SGD([torch.zeros(1)]), SimpleNamespace(average={}))  # type: ignore[arg-type]
        whole = draw()
    assert saved.keys() == {"random/cpu", "random/cuda"}
    with own_random_numbers(device, 6, random_states(saved)):
        assert draw() == whole
    with own_random_numbers(device, 5, {}):
        draw()
        assert draw() == whole
    with own_random_numbers(device, 5, {"cpu": saved["random/cpu"]}):  # a run that was begun without a GPU
        assert draw()[0] == whole[0]
    with own_random_numbers(torch.device("cpu"), 5, random_states(saved)):  # and one that goes on without
        assert torch.rand(1).item() == whole[0]
    for generator, state in zip((torch.default_generator, *gpus), before, strict=True):
        assert torch.equal(generator.get_state(), state)


def test_moments_that_are_missing_in_part_are_reported_and_in_whole_gathered_anew() -> None:
    model = nn.Linear(2, 3)
    optimizer, average = torch.optim.Adam(model.parameters()), WeightAverage(model, 0.9)
    model(torch.ones(1, 2)).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    run = model, dict(model.named_parameters()), optimizer, average
    tensors = state_tensors(*run)
    without = {name: tensor for name, tensor in tensors.items() if name != "optimizer/exp_avg/weight"}
    with pytest.raises(ValueError, match="weight lacks exp_avg"):
        load_state_tensors(without, *run)
    load_state_tensors({name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer/")}, *run)


def test_a_checkpoint_that_knows_no_checksum_of_the_metrics(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.check(log.write({"epoch": 1}), "")
