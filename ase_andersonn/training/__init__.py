"""Training of equilibrium potentials, and their errors on labelled frames."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .config import LabelKeys, TrainConfig
    from .data.labels import check_names, read_frames
    from .metrics import EvaluationReport, evaluate_dataset
    from .potential_trainer import Trainer, train, train_committee
    from .report import error_text, largest_text, parity_plot, spread_text

__all__ = [
    "EvaluationReport",
    "LabelKeys",
    "TrainConfig",
    "Trainer",
    "check_names",
    "error_text",
    "evaluate_dataset",
    "largest_text",
    "parity_plot",
    "read_frames",
    "spread_text",
    "train",
    "train_committee",
]

_HOMES = {
    **dict.fromkeys(("LabelKeys", "TrainConfig"), ".config"),
    **dict.fromkeys(("check_names", "read_frames"), ".data.labels"),
    **dict.fromkeys(("EvaluationReport", "evaluate_dataset"), ".metrics"),
    **dict.fromkeys(("error_text", "largest_text", "parity_plot", "spread_text"), ".report"),
    **dict.fromkeys(("Trainer", "train", "train_committee"), ".potential_trainer"),
}
__getattr__ = lazy_names(__name__, _HOMES)
