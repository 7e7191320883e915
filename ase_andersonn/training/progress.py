"""Where a training run stands, and the files of its folder."""

from dataclasses import dataclass, field
from pathlib import Path

from ase_andersonn.lock import Lock
from ase_andersonn.pretrained.catalog import CHECKPOINT

METRICS, BEST, LAST = "metrics.jsonl", "best.safetensors", "last.safetensors"
CONFIG, CURVE = "config.yaml", "learning_curve.png"
LOCK = ".lock"


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch: whole epochs done.
        batch: batches done of the present epoch.
        step: batches done in all.
        seconds: spent in the run.
        skipped: steps left out because a gradient was not finite.
        skipped_in_a_row: of these, the last ones without a good step between.
        best: lowest validation loss; None before the first.
        best_epoch: when that was.
        sums: of the training losses of the present epoch.
        counted: steps in these sums.
        metrics_size: bytes of the metrics file that belong to the checkpoint.
        metrics_sha256: of these bytes; empty where an earlier version of the package wrote the checkpoint.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_epoch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    metrics_size: int = 0
    metrics_sha256: str = ""


def folder_lock(folder: str | Path) -> Lock:
    """For who writes into the folder of a run, or of several."""
    remedy = "Wait until that has ended, stop it, or name another output."
    return Lock(Path(folder) / LOCK, f"the run folder {folder}", remedy)


def should_resume(folder: str, *, resume: bool, fresh: bool) -> bool:
    """Whether a run in this folder goes on from its checkpoint.

    Raises:
        FileExistsError: if there is a checkpoint and neither `resume` nor `fresh`.
    """
    path = Path(folder) / CHECKPOINT
    if path.exists() and not resume and not fresh:
        raise FileExistsError(f"{path} exists; use --resume to go on with this run or --fresh to start anew.")
    return path.exists() and not fresh
