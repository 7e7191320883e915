"""The picture of a screening run: how many structures of each label, how probable, and which answers to look at."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.classifier import UNCERTAIN, Prediction
from ase_andersonn.labels import LabelSet

from .label_table import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
GREY = "0.6"
NAMED = 40
"""Structures at most whose name is written into the picture."""
CORNERS = np.array([[0.0, 0.0], [0.5, np.sqrt(0.75)], [1.0, 0.0]])


def write_picture(
    path: Path, names: Sequence[str], answers: Sequence[Answer], labels: LabelSet, confidence: float = 0.0
) -> None:
    """Counts of the labels; probabilities, of three labels in a triangle; confidence and out-of-distribution score.

    The names are those of uncertain and unusual structures.

    Args:
        path: file, in any format that matplotlib writes; replaced whole.
        names: of the structures.
        answers: labels or errors.
        labels: what the classifier tells apart.
        confidence: below it an answer is uncertain.

    Raises:
        ValueError: for an unknown ending, and where no structure has a label.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [(name, answer) for name, answer in zip(names, answers, strict=True) if isinstance(answer, Prediction)]
    if not found:
        raise ValueError(f"no structure has a label to be drawn in {path}.")
    own = [answer for _, answer in found]
    colours = {**dict(zip(labels.labels, COLOURS, strict=False)), UNCERTAIN: GREY}
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.3, 1.2))
    _counts(left, own, colours, len(answers) - len(found))
    (_triangle if len(labels.labels) == 3 else _histogram)(middle, own, colours)
    _trust(right, own, colours, confidence)
    unsure = [(name, answer) for name, answer in found if answer.name == UNCERTAIN or answer.unusual]
    for name, answer in unsure[:NAMED]:
        place = (answer.out_of_distribution, answer.confidence)
        right.annotate(
            Path(name).name, place, (0, -9), textcoords="offset points", ha="center", fontsize=7, parse_math=False
        )
    data = io.BytesIO()
    figure.savefig(data, dpi=150, format=path.suffix.removeprefix(".").lower() or "png")
    atomic_write(path, data.getvalue())


def _counts(axes: "Axes", answers: Sequence[Prediction], colours: dict[str, str], n_failed: int) -> None:
    counts = [sum(answer.name == kind for answer in answers) for kind in colours]
    axes.bar_label(axes.bar(list(colours), counts, color=list(colours.values())))
    axes.set(ylabel="structures", title=f"{len(answers)} labels, {n_failed} failed")
    axes.tick_params(axis="x", rotation=20)


def _triangle(axes: "Axes", answers: Sequence[Prediction], colours: dict[str, str]) -> None:
    """Each structure between the corners of the three labels, which its probabilities weigh."""
    axes.plot(*CORNERS[[0, 1, 2, 0]].T, color="black", linewidth=0.8)
    for label, (x, y), side in zip(colours, CORNERS, (-0.05, 0.05, -0.05), strict=False):
        axes.text(x, y + side, label, ha="center", va="center")
    axes.set(title="probabilities", aspect="equal", ylim=(-0.1, 0.97))
    axes.axis("off")
    for kind, colour in colours.items():
        places = np.array([list(a.probabilities.values()) for a in answers if a.name == kind]).reshape(-1, 3) @ CORNERS
        axes.scatter(places[:, 0], places[:, 1], s=18, color=colour, alpha=0.8)


def _histogram(axes: "Axes", answers: Sequence[Prediction], colours: dict[str, str]) -> None:
    values = [[answer.confidence for answer in answers if answer.name == kind] for kind in colours]
    axes.hist(values, bins=20, range=(0.0, 1.0), stacked=True, color=list(colours.values()))
    axes.set(title="probabilities", xlabel="probability of the best label", ylabel="structures")


def _trust(axes: "Axes", answers: Sequence[Prediction], colours: dict[str, str], confidence: float) -> None:
    for kind, colour in colours.items():
        own = [answer for answer in answers if answer.name == kind]
        axes.scatter([a.out_of_distribution for a in own], [a.confidence for a in own], s=18, color=colour, alpha=0.8)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    axes.axhline(confidence, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="out of distribution; above 1 unlike the training data", ylabel="confidence", title="trust")
