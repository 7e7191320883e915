"""Training of equilibrium potentials, and their errors on labelled frames."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .config import LabelKeys, TrainConfig
    from .frames import check_names, read_frames
    from .metrics import EvaluationReport, evaluate_dataset
    from .report import error_text, largest_text, parity_plot, spread_text
    from .trainer import Trainer, train, train_committee

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
    **dict.fromkeys(("check_names", "read_frames"), ".frames"),
    **dict.fromkeys(("EvaluationReport", "evaluate_dataset"), ".metrics"),
    **dict.fromkeys(("error_text", "largest_text", "parity_plot", "spread_text"), ".report"),
    **dict.fromkeys(("Trainer", "train", "train_committee"), ".trainer"),
}
__getattr__ = lazy_names(__name__, _HOMES)
