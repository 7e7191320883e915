"""Tables and figures of the organic benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from benchmarks._common import drawn, figure, markdown_machine, markdown_table

WORST = 15
"""Of the small molecules are named."""
KCAL = units.kcal / units.mol


def scan_table(found: dict[str, dict[str, float]]) -> str:
    rows = [
        [name, own["bonds"], figure(1e3 * own["mean"]), figure(own["mean"] / KCAL), figure(1e3 * own["largest"])]
        for name, own in found.items()
    ]
    return markdown_table(["molecule", "bonds", "MAE, meV", "MAE, kcal/mol", "largest error, meV"], rows)


def picture(curves: dict[str, dict[str, dict[str, list[float]]]], label: str, path: Path) -> None:
    """The first three curves of every molecule."""
    with drawn(path, (15, 5.4), rows=2, columns=5) as axes:
        for axis, (name, own) in zip(axes.flat, curves.items(), strict=True):
            for color, data in zip(("C0", "C1", "C2"), own.values(), strict=False):
                axis.plot(data["x"], data["xtb"], f"{color}o", ms=3)
                axis.plot(data["x"], data["model"], color)
            axis.set(title=name, xlabel=label, ylabel="eV")
        axes[0, 0].figure.suptitle("points: GFN2-xTB, lines: model")


def report(data: dict[str, Any]) -> str:
    parts = ["# The organic potential beside GFN2-xTB", f"{data['model']}. {markdown_machine(data['machine'])}"]
    if "errors" in data:
        rows = [[k, own["frames"], figure(own["energy"]), figure(own["forces"])] for k, own in data["errors"].items()]
        parts += ["## Errors of the test frames (MAE)"]
        parts += [markdown_table(["frames", "number", "energy, meV/atom", "forces, meV/Å"], rows)]
    if "small" in data:
        errors = {name: abs(own["energy"]) for name, own in data["small"].items()}
        worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
        rows = [[f"`{k}`", *(figure(1e3 * data["small"][k][what]) for what in ("energy", "forces"))] for k in worst]
        parts += [f"## {len(errors)} relaxed small molecules, in the training set in other geometries"]
        parts += [f"Energies are off by {figure(1e3 * float(np.median(list(errors.values()))))} meV in the median."]
        parts += [markdown_table(["the worst", "energy, error, meV", "forces, largest component, meV/Å"], rows)]
    for name, title in (("torsions", "Torsions"), ("bonds", "Stretched bonds")):
        if name in data:
            parts += [f"## {title}"]
            parts += [f"![{title}](organic-{name}.png)"] if name == "torsions" else []
            parts += [scan_table(data[name])]
    if "md" in data:
        md = data["md"]
        rows = [
            [
                name,
                "yes" if own["broken_ps"] is None else f"until {own['broken_ps']:.1f} ps",
                figure(own["largest"]),
                *(figure(None if own[error] is None else 1e3 * own[error]) for error in ("forces", "energy")),
            ]
            for name, own in md["molecules"].items()
        ]
        header = ["molecule", "kept its bonds", "largest change of a bond, Å", "forces, MAE, meV/Å"]
        header += ["energy about its mean, MAE, meV"]
        parts += [f"## Molecular dynamics at 300 K, {md['ps']:.1f} ps, {md['samples']} frames labelled"]
        parts += [markdown_table(header, rows)]
    return "\n\n".join(parts)
