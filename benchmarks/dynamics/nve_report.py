"""Drift and scatter of the energy of NVE runs, as tables and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

from benchmarks._common import drawn, figure, markdown_machine, markdown_table
from benchmarks.dynamics.nve_run import DT, Run

BLOCKS = 20


def line(values: np.ndarray) -> dict[str, float]:
    """Slope of a straight line (per ps) through values taken every step, its standard error, scatter around the line.

    The error is that of the line through the means of blocks, which hardly depend on one another.
    """
    known = np.isfinite(values)
    t, y = np.arange(len(values))[known] * (DT / units.fs) / 1000.0, values[known]
    (slope, offset), scatter = np.polyfit(t, y, 1), 0.0
    scatter = float(np.std(y - slope * t - offset))
    blocks = min(BLOCKS, len(y))
    tb, yb = (np.array([part.mean() for part in np.array_split(x, blocks)]) for x in (t, y))
    error = np.nan
    if blocks > 2:
        _, covariance = np.polyfit(tb, yb, 1, cov=True)
        error = float(np.sqrt(covariance[0, 0]))
    return {"drift": float(slope), "error": error, "scatter": scatter}


def summary(run: Run, rows: np.ndarray, n_atoms: int) -> dict[str, Any]:
    """Everything about a run that goes into the results; energies per atom."""
    potential, kinetic, shadow, cell, transposed, seconds = rows.T
    total = (potential + kinetic) / n_atoms
    return asdict(run) | {
        "symbol": Path(run.symbol).stem,
        "n_atoms": n_atoms,
        "done_steps": len(rows),
        "temperature": float(kinetic.mean() / (1.5 * units.kB * n_atoms)),
        "total": line(total),
        "shadow": line(total + shadow / n_atoms),
        "cell": float(cell.mean()),
        "transposed": float(transposed.mean()),
        "us_per_atom": float(1e6 * np.median(seconds) / n_atoms),
        "trace": thinned(total - total[0]),
        "shadow_trace": thinned(total + shadow / n_atoms - total[0]),
    }


def thinned(values: np.ndarray, most: int = 400) -> list[list[float]]:
    """[time in ps, eV/atom] at no more than so many points."""
    chosen = np.flatnonzero(np.isfinite(values))
    chosen = chosen[:: max(1, len(chosen) // most)]
    return [[float(k * DT / units.fs / 1000.0), float(f"{values[k]:.4e}")] for k in chosen]


def signed(fit: dict[str, float]) -> str:
    return f"{1e6 * fit['drift']:+.2f} ± {1e6 * fit['error']:.2f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    header = ["run", "tol, eV/atom", "start", "ps", "T, K", "drift", "drift, shadow", "scatter", "f", "fᵀ", "µs/atom"]
    lines = [
        [
            f"{row['symbol']} {row['n_atoms']}",
            f"{row['tol']:.0e}",
            "warm" if row["warm"] else "cold",
            f"{row['done_steps'] / 1000:g}" + ("" if row["done_steps"] == row["n_steps"] else " (not finished)"),
            f"{row['temperature']:.0f}",
            signed(row["total"]),
            signed(row["shadow"]),
            f"{1e6 * row['total']['scatter']:.1f}",
            f"{row['cell']:.2f}",
            f"{row['transposed']:.2f}",
            figure(row["us_per_atom"]),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def report(rows: list[dict[str, Any]], facts: dict[str, Any], model: str, name: str) -> str:
    lines = [
        "# Energy conservation in molecular dynamics",
        "",
        f"{model}, velocity Verlet, 1 fs, {', '.join(sorted({row['dtype'] for row in rows}))}.",
        "Drift: slope of a straight line through the total energy, 10⁻⁶ eV/atom/ps, with its standard error, and of",
        "the shadow energy, which velocity Verlet conserves and which oscillates less. Scatter: standard deviation of",
        "the total energy around its line, 10⁻⁶ eV/atom. f, fᵀ: applications of the cell and of its transpose a step",
        "(that of the energy's correction included). Median time of a step; other things ran on the machine.",
        "",
        markdown_machine(facts),
    ]
    titles = {"long": "Default tolerance", "curve": "Drift against tolerance"}
    for part, title in titles.items():
        chosen = [row for row in rows if row["part"] == part]
        if chosen:
            lines += ["", f"## {title}", "", table(chosen)]
    if name == "nve":
        lines += ["", "![energy](../../docs/images/nve.png)"]
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    with drawn(path, (9.6, 3.8), columns=2) as (left, right):
        colors = {symbol: f"C{k}" for k, symbol in enumerate(dict.fromkeys(row["symbol"] for row in rows))}
        for row in (row for row in rows if row["part"] == "long"):
            t, e = np.array(row["shadow_trace"]).T
            style = "-" if row["warm"] else ":"
            label = f"{row['symbol']}, {'warm' if row['warm'] else 'cold'} starts"
            left.plot(t, 1e6 * (e - e[0]), style, color=colors[row["symbol"]], lw=0.9, label=label)
        left.set(xlabel="time, ps", ylabel="change of the shadow energy, 10⁻⁶ eV/atom")
        left.set_visible(left.has_data())
        if left.has_data():
            left.legend(frameon=False, fontsize=8)
        for symbol, color in colors.items():
            for warm, style in ((True, "o-"), (False, "s:")):
                chosen = [r for r in rows if r["part"] == "curve" and (r["symbol"], r["warm"]) == (symbol, warm)]
                chosen.sort(key=lambda r: float(r["tol"]))
                if chosen:
                    drift = [1e6 * abs(r["shadow"]["drift"]) for r in chosen]
                    error = [1e6 * r["shadow"]["error"] for r in chosen]
                    tol = [r["tol"] for r in chosen]
                    label = f"{symbol}, {'warm' if warm else 'cold'} starts"
                    right.errorbar(tol, drift, error, fmt=style, color=color, mfc="none", ms=4, lw=1, label=label)
        right.set_visible(right.has_data())
        if right.has_data():
            right.set(xscale="log", yscale="log", xlabel="tolerance, eV/atom", ylabel="|drift|, 10⁻⁶ eV/atom/ps")
            right.legend(frameon=False, fontsize=8)


def results_of(work: Path) -> list[dict[str, Any]]:
    """Of every run found in the folder, finished or not."""
    found = []
    for path in sorted(work.glob("run-*.npz")):
        if path.name.endswith(".partial.npz"):
            continue
        saved = np.load(path)
        if len(saved["rows"]) > 2 * BLOCKS:
            found.append(summary(Run(**json.loads(str(saved["run"]))), saved["rows"], len(saved["positions"])))
    return sorted(found, key=lambda row: (row["part"] != "long", row["symbol"], -row["tol"], not row["warm"]))
