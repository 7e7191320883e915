"""One training run from several seeds, and the models that come of it in one folder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ase_andersonn.atomic_write import atomic_write

from .loop import TrainingLoop
from .progress import folder_lock

logger = logging.getLogger(__name__)

ENSEMBLE = "ensemble"
AnyRun = TypeVar("AnyRun", bound=TrainingLoop)


def train_from_seeds(
    config: Any,
    n: int,
    train: Callable[[Any], AnyRun],
    models: Sequence[str],
    *,
    is_done: Callable[[Any], bool],
    fresh: bool,
) -> list[AnyRun]:
    """Train from `n` seeds, in `output/seed-…`; the models are left as `output/ensemble/seed-….safetensors`.

    Stops at the first run that is interrupted. Models of other seeds that are in the ensemble are removed from it.

    Args:
        config: the run; its seed is that of the first member.
        n: members.
        train: runs a config.
        models: names of a run's model file; the first that is there is taken.
        is_done: whether a member has its model already and is left as it is.
        fresh: whether all that an ensemble left here is removed first.

    Returns:
        the runs of this call.

    Raises:
        ValueError: for no members.
        InUseError: if another process trains in the folder, or in that of a member; the text names it.
    """
    if n < 1:
        raise ValueError(f"n is {n}; an ensemble has at least one member.")
    with folder_lock(config.output):
        return _train_from_seeds(config, n, train, models, is_done, fresh)


def _train_from_seeds(
    config: Any,
    n: int,
    train: Callable[[Any], AnyRun],
    models: Sequence[str],
    is_done: Callable[[Any], bool],
    fresh: bool,
) -> list[AnyRun]:
    runs: list[AnyRun] = []
    folder = Path(config.output)
    ensemble, seeds = folder / ENSEMBLE, range(config.seed, config.seed + n)
    for left in folder.glob("seed-*/*.safetensors") if fresh else ():
        left.unlink()
    for left in ensemble.glob("seed-*"):
        if fresh or left.stem not in {f"seed-{seed}" for seed in seeds}:
            left.unlink()
    for seed in seeds:
        member = replace(config, seed=seed, output=str(folder / f"seed-{seed}"))
        logger.info("member %d of %d, seed %d", seed - config.seed + 1, n, seed)
        if not is_done(member):
            runs.append(train(member))
            if not runs[-1].finished:
                return runs
        ensemble.mkdir(exist_ok=True)
        trained = next(path for name in models if (path := Path(member.output) / name).exists())
        for suffix in (".safetensors", ".json"):
            atomic_write(ensemble / f"seed-{seed}{suffix}", trained.with_suffix(suffix).read_bytes())
    return runs
