"""Tables and pictures of what `tiles.py` measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._common import RESULTS, drawn, figure, markdown_machine, markdown_table


def report(data: dict[str, Any]) -> str:
    lines = ["# Tiles", "", markdown_machine(data["machine"]), ""]
    if "error" in data:
        ratios = data["error"]["ratios"]
        header = ["context, cutoffs (1: the reach)", *(f"{ratio:g}" for ratio in ratios)]
        table = [
            [f"{row['name']}, {label}", *(f"{value:.1e}" for value in row[key])]
            for row in data["error"]["rows"]
            for key, label in (("energy", "eV/atom"), ("per_atom", "an atom's energy, eV"), ("forces", "eV/Å"))
        ]
        lines += ["## Difference from the untiled energy and forces", "", markdown_table(header, table), ""]
        lines += ["Root mean squares but for the energy.", "", "![error](tiles_error.png)", ""]
    for part, title in (("sizes", "Energy"), ("sizes_forces", "Energy and forces")):
        if part in data:
            lines += [f"## {title} against size", "", f"{data[part]['model']}, one thread, float32.", ""]
            lines += [sizes_table(data[part]["rows"]), "", f"Slope of log time: {data[part]['slope']:.3f}.", ""]
    titles = {
        "memory": "Forces in given memory",
        "workers": "One process and Dask workers",
        "largest": "The largest structure, energy, on all cores",
        "largest_forces": "The largest structure, energy and forces, on all cores",
    }
    for part, title in titles.items():
        if part in data:
            lines += [f"## {title}", "", sizes_table(data[part]["rows"]), ""]
    if "moves" in data:
        rows = data["moves"]["rows"]
        table = [
            [
                f"{row['n_atoms']:,}",
                figure(1e3 * row["move"]),
                figure(row["full"]),
                f"{row['full'] / row['move']:,.0f}",
                row["pairs"],
                "" if row["difference"] is None else f"{row['difference']:.1e}",
            ]
            for row in rows
        ]
        header = ["atoms", "move, ms", "all tiles, s", "ratio", "atoms solved for", "running − fresh energy, eV"]
        lines += ["## A displacement move", "", f"{data['moves']['model']}, CPU time of one thread, float32; focus "]
        lines[-1] += f"{rows[0]['focus']} Å, context {rows[0]['context']} Å."
        lines += ["", markdown_table(header, table), ""]
    return "\n".join(lines)


def sizes_table(rows: list[dict[str, Any]]) -> str:
    header = [
        "atoms",
        "wall, s",
        "CPU µs/atom",
        "peak memory, MiB",
        "grown by, MiB",
        "allowed, MiB",
        "tiles",
        "solved/atom",
    ]
    return markdown_table(
        header,
        [
            [
                f"{row['n_atoms']:,}",
                figure(row["wall"]),
                figure(1e6 * row["cpu"] / row["n_atoms"]),
                f"{row['peak'] / 2**20:,.0f}",
                f"{(row['peak'] - row['before']) / 2**20:,.0f}",
                "" if not row["max_memory"] else f"{row['max_memory'] / 2**20:,.0f}",
                f"{row['tiles']:,}",
                f"{row['pairs'] / row['n_atoms']:.2f}",
            ]
            for row in rows
        ],
    )


def pictures(data: dict[str, Any]) -> None:
    if "error" in data:
        with drawn(RESULTS / "tiles_error.png", (6.2, 4.4)) as axes:
            ratios = np.array(data["error"]["ratios"])
            for k, row in enumerate(data["error"]["rows"]):
                axes.semilogy(
                    ratios, row["per_atom"], "o-", color=f"C{k}", label=f"{row['name']}: energy of an atom, eV"
                )
                axes.semilogy(ratios, row["forces"], "s--", color=f"C{k}", mfc="none", label="forces, eV/Å")
                predicted = row["per_atom"][0] * row["contraction"] ** (ratios - 1.0)
                axes.semilogy(ratios, predicted, ":", color=f"C{k}", label=f"γ = {row['contraction']:g} a cutoff")
            axes.set(xlabel="context, cutoffs (1: the reach)", ylabel="root mean square difference from the untiled")
            axes.legend(frameon=False, fontsize=7)
    for part in ("sizes", "sizes_forces"):
        if part in data:
            rows = data[part]["rows"]
            n = [row["n_atoms"] for row in rows]
            with drawn(RESULTS / f"tiles_{part}.png", (8.6, 3.6), columns=2) as (left, right):
                left.loglog(n, [row["wall"] for row in rows], "o-")
                left.set(xlabel="atoms", ylabel="time, s", title=f"slope {data[part]['slope']:.2f}")
                right.loglog(n, [row["peak"] / 2**20 for row in rows], "o-")
                right.set(xlabel="atoms", ylabel="peak memory of the process, MiB")
