"""Training of equilibrium potentials, and their errors on labelled frames."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .config import TrainConfig
    from .data.labels import read_frames
    from .metrics import evaluate_dataset
    from .potential_trainer import train, train_committee

__all__ = ["TrainConfig", "evaluate_dataset", "read_frames", "train", "train_committee"]

_HOMES = {
    "TrainConfig": ".config",
    "read_frames": ".data.labels",
    "evaluate_dataset": ".metrics",
    **dict.fromkeys(("train", "train_committee"), ".potential_trainer"),
}
_FORMER = {
    "LabelKeys": ".config",
    "check_names": ".data.labels",
    "EvaluationReport": ".metrics",
    **dict.fromkeys(("error_text", "largest_text", "parity_plot", "spread_text"), ".report"),
    "Trainer": ".potential_trainer",
}
__getattr__ = lazy_names(__name__, _HOMES, _FORMER)
