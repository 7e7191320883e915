"""Training of classifiers of structures, their calibration, and their errors."""

from .config import ClassifierTrainConfig
from .metrics import ClassMetrics, class_metrics
from .trainer import ClassifierTrainer, train_classifier, train_ensemble

__all__ = [
    "ClassMetrics",
    "ClassifierTrainConfig",
    "ClassifierTrainer",
    "class_metrics",
    "train_classifier",
    "train_ensemble",
]
