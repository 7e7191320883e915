"""One training run from several seeds, and the models that come of it in one folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ase_andersonn.models.checkpoint import write_whole

from .run import Run

ENSEMBLE = "ensemble"
AnyRun = TypeVar("AnyRun", bound=Run)


def train_from_seeds(
    config: Any,
    n: int,
    train: Callable[[Any], AnyRun],
    model: str,
    *,
    is_done: Callable[[Any], bool],
    fresh: bool,
) -> list[AnyRun]:
    """Train from `n` seeds, in `output/seed-…`; the models are left as `output/ensemble/seed-….safetensors`.

    Stops at the first run that is interrupted.

    Args:
        config: the run; its seed is that of the first member.
        n: members.
        train: runs a config.
        model: name of the model file of a run.
        is_done: whether a member has its model already and is left as it is.
        fresh: whether models of an ensemble that is there are removed.

    Returns:
        the runs of this call.
    """
    runs: list[AnyRun] = []
    folder = Path(config.output)
    ensemble = folder / ENSEMBLE
    if fresh:
        for left in ensemble.glob("seed-*"):
            left.unlink()
    for seed in range(config.seed, config.seed + n):
        member = replace(config, seed=seed, output=str(folder / f"seed-{seed}"))
        if not is_done(member):
            runs.append(train(member))
            if not runs[-1].finished:
                return runs
        ensemble.mkdir(exist_ok=True)
        for suffix in (".safetensors", ".json"):
            trained = (Path(member.output) / model).with_suffix(suffix)
            write_whole(ensemble / f"seed-{seed}{suffix}", trained.read_bytes())
    return runs
