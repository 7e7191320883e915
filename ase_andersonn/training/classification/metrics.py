"""How good the labels and their probabilities are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

BINS = 15
"""Of the calibration error."""


@dataclass(frozen=True)
class ClassMetrics:
    """Errors of a classifier on labelled structures.

    Attributes:
        n: structures.
        accuracy: share of right labels.
        balanced_accuracy: mean over the classes that occur of the share found.
        macro_f1: mean over the classes that occur of `2 TP / (2 TP + FP + FN)`.
        nll: mean of `−ln p(right label)`.
        calibration_error: `Σ_b n_b |accuracy_b − confidence_b| / n` over 15 bins of the confidence.
        auc: area under the ROC curve of the first label against the rest; nan where one of them does not occur.
        confusion: `[right][given]`.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    nll: float
    calibration_error: float
    auc: float
    confusion: list[list[int]]

    def as_numbers(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """In one line."""
        return metrics_text(self.as_numbers())


def metrics_text(numbers: Mapping[str, Any]) -> str:
    """What `as_numbers` returned, in one line."""
    auc = numbers["auc"]
    return (
        f"accuracy {numbers['accuracy']:.4f}, balanced {numbers['balanced_accuracy']:.4f}, "
        f"F1 {numbers['macro_f1']:.4f}, NLL {numbers['nll']:.4f}, calibration error {numbers['calibration_error']:.4f}"
        + (f", AUC {auc:.4f}" if auc is not None and auc == auc else "")
    )


def class_metrics(probabilities: Tensor, targets: Tensor) -> ClassMetrics:
    """Errors of probabilities [n, n_classes] against labels [n].

    Raises:
        ValueError: without structures.
    """
    if not len(targets):
        raise ValueError("there are no structures to measure errors on.")
    probabilities = probabilities.double()
    n_classes = probabilities.shape[1]
    given = probabilities.argmax(1)
    confusion = torch.bincount(targets * n_classes + given, minlength=n_classes**2).view(n_classes, n_classes)
    right, of_class, as_class = confusion.diagonal().double(), confusion.sum(1).double(), confusion.sum(0).double()
    occurs = of_class > 0
    own = probabilities[torch.arange(len(targets)), targets].clamp(min=1e-12)
    return ClassMetrics(
        n=len(targets),
        accuracy=float(right.sum() / len(targets)),
        balanced_accuracy=float((right / of_class)[occurs].mean()),
        macro_f1=float((2.0 * right / (of_class + as_class))[occurs].mean()),
        nll=float(-own.log().mean()),
        calibration_error=calibration_error(probabilities, targets),
        auc=area_under_curve(probabilities[:, 0], targets == 0),
        confusion=confusion.tolist(),
    )


def calibration_bins(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Structures, mean confidence and accuracy of each bin of the confidence [BINS, 3]; zeros where it is empty."""
    confidence, given = probabilities.double().max(1)
    index = (confidence * BINS).long().clamp(max=BINS - 1)
    columns = torch.stack([torch.ones_like(confidence), confidence, (given == targets).double()], 1)
    sums = torch.zeros(BINS, 3, dtype=torch.float64).index_add(0, index, columns)
    sums[:, 1:] /= sums[:, :1].clamp(min=1.0)
    return sums


def calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    """Expected calibration error. Guo et al., arXiv 1706.04599, eq. 5."""
    n, confidence, accuracy = calibration_bins(probabilities, targets).unbind(1)
    return float((n * (accuracy - confidence).abs()).sum() / n.sum())


def area_under_curve(score: Tensor, positive: Tensor) -> float:
    """Probability that a positive has a higher score than a negative, ties counted half (Mann and Whitney)."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = score.unique(return_inverse=True, return_counts=True)
    rank = (counts.cumsum(0).double() - 0.5 * (counts.double() - 1.0))[inverse]
    total = float(rank[positive].sum()) - 0.5 * n_positive * (n_positive + 1)
    return total / (n_positive * n_negative)
