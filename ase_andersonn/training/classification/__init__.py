"""Training of classifiers of structures, their calibration, and their errors."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
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

_HOMES = {
    "ClassifierTrainConfig": ".config",
    **dict.fromkeys(("ClassMetrics", "class_metrics"), ".metrics"),
    **dict.fromkeys(("ClassifierTrainer", "train_classifier", "train_ensemble"), ".trainer"),
}
__getattr__ = lazy_names(__name__, _HOMES)
