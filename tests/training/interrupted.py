"""Training runs that end in the middle, and the comparison of a resumed run with an uninterrupted one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from ase_andersonn import load_model
from ase_andersonn.training.classification.trainer import ClassifierTrainer
from ase_andersonn.training.potential_trainer import Trainer
from ase_andersonn.training.run_checkpoint import read_checkpoint

AnyTrainer = TypeVar("AnyTrainer", Trainer, ClassifierTrainer)
TIMES = ("minutes", "seconds", "output", "metrics_size", "metrics_sha256")


def without_times(value: Any) -> Any:
    return {k: without_times(v) for k, v in value.items() if k not in TIMES} if isinstance(value, dict) else value


def assert_same_run(
    a: Path, b: Path, model: str = "best.safetensors", load: Callable[[Path], torch.nn.Module] = load_model
) -> None:
    """All tensors bit for bit, and all numbers but the times."""
    tensors, state = read_checkpoint(a / "checkpoint.safetensors")
    other_tensors, other_state = read_checkpoint(b / "checkpoint.safetensors")
    assert_same_tensors(tensors, other_tensors)
    assert without_times(state) == without_times(other_state)
    lines, other_lines = ((x / "metrics.jsonl").read_text().splitlines() for x in (a, b))
    assert [without_times(json.loads(x)) for x in lines] == [without_times(json.loads(x)) for x in other_lines]
    assert_same_tensors(load(a / model).state_dict(), load(b / model).state_dict())


def assert_same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


class Killed(Exception):
    """Stands for the death of the process."""


def killed_after(steps: int, trainer: AnyTrainer) -> AnyTrainer:
    """The trainer, which raises `Killed` after this many steps without saving anything."""
    step, steps_left = trainer.step, iter(range(steps))

    def mortal_step(indices: list[int]) -> None:
        if next(steps_left, None) is None:
            raise Killed
        step(indices)

    trainer.step = mortal_step  # type: ignore[method-assign]
    return trainer
