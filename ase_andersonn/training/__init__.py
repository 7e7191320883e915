"""Training of equilibrium potentials, and their errors on labelled frames."""

from .config import TrainConfig
from .frames import LabelKeys, check_names, read_frames
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
