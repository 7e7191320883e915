"""Training of classifiers of structures, their calibration, and their errors."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .config import ClassifierTrainConfig
    from .trainer import train_classifier

__all__ = ["ClassifierTrainConfig", "train_classifier"]

_HOMES = {"ClassifierTrainConfig": ".config", "train_classifier": ".trainer"}
_FORMER = {
    **dict.fromkeys(("ClassMetrics", "class_metrics"), ".metrics"),
    **dict.fromkeys(("ClassifierTrainer", "train_ensemble"), ".trainer"),
}
__getattr__ = lazy_names(__name__, _HOMES, _FORMER)
