"""What a run leaves to look at: metrics as JSON lines, learning curve, table of errors, parity plot."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from ase_andersonn.properties import LABELS, Property

from .metrics import ALL, ErrorRow, EvaluationReport
from .reference import energies_by_element

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class MetricsLog:
    """A file of JSON lines, one a record."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, record: Mapping[str, Any]) -> int:
        """Append a record; the size of the file in bytes."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite_json(record), allow_nan=False) + "\n")
            file.flush()
            return os.fstat(file.fileno()).st_size

    def sha256(self, size: int) -> str:
        """Of the file's first bytes."""
        with open(self.path, "rb") as file:
            return hashlib.sha256(file.read(size)).hexdigest()

    def check(self, size: int, sha256: str) -> None:
        """Raise ValueError where a file is there that does not begin with so many bytes of this SHA-256, if any."""
        if sha256 and self.path.exists() and self.sha256(size) != sha256:
            raise ValueError(
                f"{self.path} is not as the run left it: it was changed or is damaged. Put a copy in its place, or "
                "remove it to go on without the errors of earlier epochs."
            )

    def truncate(self, size: int) -> None:
        """Drop what was written after the checkpoint that a run resumes from."""
        if self.path.exists() and self.path.stat().st_size > size:
            os.truncate(self.path, size)

    def read(self) -> list[dict[str, Any]]:
        """All records."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def finite_json(value: Any) -> Any:
    """With None for numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite_json(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def error_text(errors: Mapping[str, ErrorRow]) -> str:
    """The errors as a table: MAE / RMSE of energy, forces and stress, a row for all and for each element."""
    header = f"{'':<6}" + "".join(f"{f'{label.name} [{label.printed_unit}]':>24}" for label in LABELS)
    lines = [header, f"{'':<6}" + f"{'MAE / RMSE':>24}" * len(LABELS)]
    for symbol, row in errors.items():
        lines.append(f"{symbol:<6}" + "".join(f"{_cell(row, label):>24}" for label in LABELS))
    return "\n".join(lines)


def largest_text(result: EvaluationReport) -> str:
    """Where the errors are largest, frames counted from 0, and what is left of the energies' with shifted elements."""
    systems, lines = result.systems, []
    energy = (result.predicted.energy - result.labelled.energy) / systems.n_per_system
    if len(known := (~energy.isnan()).nonzero().flatten()):
        frame = int(known[energy[known].abs().argmax()])
        lines.append(f"largest error of an energy: {1e3 * energy[frame]:+.3f} meV/atom, frame {frame}")
        if len(known) > len(systems.numbers.unique()):  # else shifts fit anything
            lines.append(f"energies' MAE after one shift of each element: {1e3 * _shifted(result, known):.3f} meV/atom")
    forces = torch.linalg.vector_norm(result.predicted.forces - result.labelled.forces, dim=1)
    if len(known := (~forces.isnan()).nonzero().flatten()):
        atom = int(known[forces[known].argmax()])
        frame = int(systems.system[atom])
        index = atom - int((systems.system < frame).sum())
        lines.append(
            f"largest error of a force: {1e3 * forces[atom]:.3f} meV/Å, frame {frame}, atom {index} "
            f"({chemical_symbols[int(systems.numbers[atom])]})"
        )
    return "\n".join(lines)


def _shifted(result: EvaluationReport, known: Tensor) -> float:
    """eV/atom; of these frames."""
    each = result.systems.numbers.split(result.systems.n_per_system.tolist())
    numbers = [each[k].numpy() for k in known.tolist()]
    errors = (result.predicted.energy - result.labelled.energy)[known].tolist()
    elements = result.systems.numbers.unique().tolist()
    shifts = energies_by_element(elements, numbers, errors)
    left = [
        abs(error - sum(shifts[z] for z in of_one.tolist())) / len(of_one)
        for error, of_one in zip(errors, numbers, strict=True)
    ]
    return float(sum(left) / len(left))


def spread_text(spread: ErrorRow) -> str:
    """The spread of a committee in one line, as it is in the calculator's `diagnostics`."""
    cells = (f"{x.name} {cell} {x.printed_unit}" for x in LABELS if (cell := _cell(spread, x)) != "-")
    return f"spread of the members, mean / RMS (forces: an atom's three components together): {', '.join(cells)}"


def _cell(row: ErrorRow, label: Property) -> str:
    errors = getattr(row, label.name)
    return f"{errors.mae * label.factor:.3f} / {errors.rmse * label.factor:.3f}" if errors.count else "-"


def epoch_text(record: Mapping[str, Any]) -> str:
    """A record of the metrics in one line."""
    text = f"epoch {record['epoch']}, {record['minutes']:.1f} min"
    if record["epoch"]:
        text += f", loss {record['train'].get('loss', math.nan):.4f}"
    if "validation" in record:
        text += f", validation {record['validation']['loss']:.4f}"
        for label in LABELS:
            errors = record["validation"]["errors"][ALL].get(label.name)
            text += f", {label.name} {errors['mae'] * label.factor:.2f} {label.printed_unit}" if errors else ""
    return text + (f", {record['skipped_steps']} steps skipped" if record.get("skipped_steps") else "")


def learning_curve(metrics: Path, picture: Path) -> None:
    """Training and validation loss and the validation errors against the epoch."""
    records = MetricsLog(metrics).read()
    figure, axes = new_figure(1, 2)
    validated = [r for r in records if r.get("validation", {}).get("loss") is not None]
    epochs = [r["epoch"] for r in validated]
    trained = [r for r in records if "loss" in r["train"]]
    axes[0].plot([r["epoch"] for r in trained], [r["train"]["loss"] for r in trained], label="training")
    axes[0].plot(epochs, [r["validation"]["loss"] for r in validated], label="validation")
    axes[0].set(xlabel="epoch", ylabel="loss", yscale="log")
    for label in LABELS:
        points = [(r["epoch"], r["validation"]["errors"][ALL].get(label.name)) for r in validated]
        known = [(epoch, errors["mae"] * label.factor) for epoch, errors in points if errors]
        if known:
            axes[1].plot(*zip(*known, strict=True), label=f"{label.name} [{label.printed_unit}]")
    axes[1].set(xlabel="epoch", ylabel="validation MAE", yscale="log")
    for axis in axes:
        if axis.lines:
            axis.legend()
    figure.savefig(picture, dpi=150)


def parity_plot(result: EvaluationReport, picture: str | Path) -> None:
    """Predicted against labelled energy per atom, force components and stress components."""
    figure, axes = new_figure(1, 3)
    n = result.systems.n_per_system
    pairs = (
        (result.labelled.energy / n, result.predicted.energy / n, "energy [eV/atom]"),
        (result.labelled.forces, result.predicted.forces, "force [eV/Å]"),
        (result.labelled.stress, result.predicted.stress, "stress [eV/Å³]"),
    )
    for axis, (labelled, predicted, title) in zip(axes, pairs, strict=True):
        known = ~(labelled.isnan() | predicted.isnan())
        x, y = labelled[known].numpy(), predicted[known].numpy()
        axis.scatter(x, y, s=4, linewidths=0, alpha=0.5, rasterized=True)
        if len(x):
            ends = [min(x.min(), y.min()), max(x.max(), y.max())]
            axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.set(xlabel=f"reference {title}", ylabel=f"predicted {title}")
    figure.savefig(picture, dpi=150)


def new_figure(rows: int, columns: int) -> "tuple[Figure, list[Axes]]":
    """An empty figure with axes in rows and columns."""
    # A Figure of its own and not pyplot: no global state, no window, whatever back end the user has chosen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * columns, 4.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
