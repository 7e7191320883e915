"""Tables of the benchmark of one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks._common import figure, markdown_machine, markdown_table
from benchmarks.speed.gpu_measurements import CHECKS, RESIDUAL, Row


def kib(value: float | None) -> str:
    return figure(None if value is None else value / 1024)


def pair(values: list[int]) -> str:
    return " + ".join(map(str, values))


COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "solver": {
        "f, ms": lambda row: figure(row["cell_ms"]),
        "fᵀ, ms": lambda row: figure(row["transposed_ms"]),
        **{
            f"read every {k}: ms (applications)": lambda row, k=k: (
                f"{figure(row[f'features_ms_{k}'] + row[f'adjoint_ms_{k}'])} ({pair(row[f'evaluations_{k}'])})"
            )
            for k in CHECKS
        },
    },
    "evaluate": {
        "energy + forces, ms": lambda row: figure(row["ms"]),
        "µs/atom": lambda row: figure(row["us_per_atom"]),
        "applications": lambda row: pair(row["evaluations"]),
        "energy alone, ms": lambda row: figure(row["energy_ms"]),
        "graph, ms": lambda row: figure(row["graph_ms"]),
        "peak, KiB/atom": lambda row: kib(row["peak_bytes_per_atom"]),
        "graph, KiB/atom": lambda row: kib(row["graph_bytes_per_atom"]),
    },
    "md": {
        "step, ms": lambda row: figure(row["ms"]),
        "µs/atom": lambda row: figure(row["us_per_atom"]),
        "of it neighbours, ms": lambda row: figure(row["neighbors_ms"]),
        "applications": lambda row: figure(row["evaluations"]),
    },
    "training": {
        "step, ms": lambda row: figure(row["ms"]),
        "µs/atom": lambda row: figure(row["us_per_atom"]),
        "structures": lambda row: str(row["n_systems"]),
        "peak, KiB/atom": lambda row: kib(row["peak_bytes_per_atom"]),
    },
    "agreement": {
        "energy, eV/atom": lambda row: f"{row['energy']:.1e}",
        "forces, relative": lambda row: f"{row['forces']:.1e}",
        "stress, relative": lambda row: f"{row['stress']:.1e}",
    },
}
TITLES = {
    "solver": f"Solver: features and adjoint to {RESIDUAL:.0e}, cold",
    "evaluate": "Energy and forces",
    "md": "A step of molecular dynamics, warm starts",
    "training": "A step of training",
    "agreement": "Largest difference from the CPU in float64",
}


def report(rows: list[Row], facts: dict[str, Any], model: str) -> str:
    lines = [
        "# GPU" if facts["device"] != "cpu" else "# CPU, as on a GPU",
        "",
        f"{model}.",
        "",
        markdown_machine(facts),
    ]
    for part, columns in COLUMNS.items():
        chosen = [row for row in rows if row["part"] == part]
        if not chosen:
            continue
        table = [
            [
                f"{row['n_atoms']:,}",
                row["dtype"],
                row.get("backend", row["mode"]),
                *([row["failed"]] * len(columns) if "failed" in row else [show(row) for show in columns.values()]),
            ]
            for row in chosen
        ]
        lines += ["", f"## {TITLES[part]}", "", markdown_table(["atoms", "dtype", "runs", *columns], table)]
    return "\n".join(lines)
