"""The page of `optimize.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks._common import NOT_MEASURED, figure, markdown_machine, markdown_table


def _gain(found: dict[str, Any]) -> str:
    parts = []
    for model, one in found.items():
        choice, times = one["choice"], one["us_per_atom"]
        best = choice["chosen"]
        rows = [[way, *(figure(times[name][way]) for name in times)] for way in ("eager", "chosen")]
        rows.append(["eager / chosen", *(figure(t["eager"] / t["chosen"], 2) for t in times.values())])
        small, large = choice["n_atoms"]
        header = ["candidate", "block", f"{small} atoms", f"{large} atoms", "build, s", "ΔE", "ΔF", "verdict"]
        candidates = [
            [
                c["name"],
                c["block"],
                figure(c["small_us"]),
                figure(c["large_us"]),
                figure(c["build_s"], 2),
                *("-" if c[key] is None else f"{c[key]:.0e}" for key in ("energy_error", "forces_error")),
                c["verdict"],
            ]
            for c in choice["candidates"]
        ]
        parts += [
            f"### {model}: {best['name']} in blocks of {best['block']}, chosen in {figure(choice['wall_s'], 2)} s\n",
            markdown_table(["µs of CPU time per atom", *times], rows) + "\n",
            markdown_table(header, candidates) + "\n",
        ]
    return "\n".join(parts)


def _blocks(found: list[dict[str, Any]]) -> str:
    names = {0: "256 atoms", -1: "all atoms"}
    sizes = sorted({row["n_atoms"] for row in found})
    rows = []
    for mode, block in dict.fromkeys((row["mode"], row["block"]) for row in found):
        own = {row["n_atoms"]: row for row in found if (row["mode"], row["block"]) == (mode, block)}
        measured = [own[n] if "cpu_s" in own[n] else None for n in sizes]
        rows.append(
            [
                mode,
                names.get(block, f"{block} atoms"),
                *(figure(row and row["cpu_s"] / row["n_atoms"] * 1e6) for row in measured),
                *(figure(row and row["peak_mib"]) for row in measured),
            ]
        )
    header = ["way", "block", *(f"{n:,}: µs/atom" for n in sizes), *(f"{n:,}: MiB" for n in sizes)]
    reasons = [
        f"- {row['mode']}, {names[row['block']]}, {row['n_atoms']:,}: {row['reason']}"
        for row in found
        if "reason" in row
    ]
    return "\n".join([markdown_table(header, rows), "", *reasons])


def _cold(found: dict[str, float]) -> str:
    return markdown_table(["a new process", "CPU, s"], [[name, figure(value)] for name, value in found.items()])


def _threads(found: dict[str, Any]) -> str:
    one, two = found["wall_s"]["1"], found["wall_s"]["2"]
    gained = f"{figure(one / two)} times as fast (load {found['load']:.1f})"
    return f"One thread {figure(one)} s, two {figure(two)} s: {gained}."


SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "gain": ("Eager against chosen: silicon, energy and forces, one thread, float32", _gain),
    "blocks": (
        "Depth-first in blocks of atoms against layer by layer: silicon, energy and forces, one thread",
        _blocks,
    ),
    "cold": ("A cold process: CPU seconds, medians", _cold),
    "threads": ("Two threads: wall time of a call, Si 4096", _threads),
}


def report(data: dict[str, Any]) -> str:
    """Markdown of all sections; those that are missing are marked as not measured."""
    parts = ["# The choice of the fastest way to run a model\n", "`python -m benchmarks.speed.optimize`\n"]
    for name, (title, section) in SECTIONS.items():
        parts.append(f"## {title}\n")
        if name in data:
            parts += [section(data[name]["found"]) + "\n", f"Machine: {markdown_machine(data[name]['machine'])}.\n"]
        else:
            parts.append(f"{NOT_MEASURED}\n")
    return "\n".join(parts)
