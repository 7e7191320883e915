"""Pictures of a classifier: learning curve, confusion matrix, calibration curve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_andersonn.labels import LabelSet
from ase_andersonn.training.report import MetricsLog, new_figure

from .metrics import calibration_bins, metrics_text


def epoch_text(record: Mapping[str, Any]) -> str:
    """A record of the metrics in one line."""
    text = f"epoch {record['epoch']}, {record['minutes']:.1f} min, loss {record['train'].get('loss', float('nan')):.4f}"
    if "validation" in record:
        text += f", validation: {metrics_text(record['validation'])}"
    return text + (f", {record['skipped_steps']} steps skipped" if record["skipped_steps"] else "")


def learning_curve(metrics: Path, picture: Path) -> None:
    """Losses and accuracies against the epoch."""
    records = MetricsLog(metrics).read()
    figure, axes = new_figure(1, 2)
    axes[0].plot([r["epoch"] for r in records], [r["train"].get("loss") for r in records], label="training loss")
    validated = [r for r in records if "validation" in r]
    epochs = [r["epoch"] for r in validated]
    for axis, names in ((axes[0], ("nll",)), (axes[1], ("accuracy", "balanced_accuracy"))):
        for name in names:
            axis.plot(epochs, [r["validation"][name] for r in validated], label=f"validation {name.replace('_', ' ')}")
        axis.set(xlabel="epoch")
        axis.legend()
    figure.savefig(picture, dpi=150)


def confusion_picture(confusion: list[list[int]], labels: LabelSet, picture: Path) -> None:
    """Right labels in rows, given ones in columns; counts, and shares of the row as colour."""
    counts = torch.tensor(confusion, dtype=torch.float64)
    share = counts / counts.sum(1, keepdim=True).clamp(min=1.0)
    figure, (axis,) = new_figure(1, 1)
    axis.imshow(share.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            shade = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, f"{count}\n{100 * float(share[i, j]):.0f} %", ha="center", va="center", color=shade)
    ticks = range(len(labels))
    axis.set_xticks(ticks, labels.labels)
    axis.set_yticks(ticks, labels.labels)
    axis.set(xlabel="given", ylabel="right")
    figure.savefig(picture, dpi=150)


def calibration_picture(probabilities: Tensor, targets: Tensor, picture: Path) -> None:
    """Accuracy against confidence, with the number of structures in each bin as area."""
    n, confidence, accuracy = calibration_bins(probabilities, targets).unbind(1)
    full = n > 0
    figure, (axis,) = new_figure(1, 1)
    axis.plot([0.0, 1.0], [0.0, 1.0], color="black", linewidth=0.8)
    axis.plot(confidence[full], accuracy[full])
    axis.scatter(confidence[full], accuracy[full], s=10.0 + 300.0 * n[full] / n.sum())
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0.0, 1.02), ylim=(0.0, 1.02))
    figure.savefig(picture, dpi=150)
