"""Tables of `inference.py`: what was measured, and the reasons for what was not."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks._common import NOT_MEASURED, figure, markdown_machine, markdown_table
from benchmarks.speed.models import MODELS

N_ATOMS = {"Si8": 8, "cluster27": 27, "Si64": 64, "Si512": 512, "Cu864": 864, "Si1728": 1728}
SMALL = 100  # atoms; smaller systems are called more often: their calls are short and noisy
MD_SYSTEM, MD_STEPS = "Si64", 100


def cpu_us_per_atom(stage: dict[str, Any] | None) -> str:
    if stage is None or "reason" in stage:
        return NOT_MEASURED
    return figure(statistics.median(stage["cpu_s"]) / stage["n_atoms"] * 1e6)


def wall_ms(stage: dict[str, Any] | None) -> str:
    if stage is None or "reason" in stage:
        return NOT_MEASURED
    return figure(statistics.median(stage["wall_s"]) * 1e3)


def md_cell(stage: dict[str, Any] | None) -> str:
    if stage is None or "reason" in stage:
        return NOT_MEASURED
    if stage["steps"] == MD_STEPS:
        return figure(stage["wall_s"])
    return f"{figure(stage['wall_s'])} for {stage['steps']}"


def growth_cell(worker: Any) -> str:
    """Growth of the peak resident size between Si8 and the largest silicon measured."""
    silicon = {name: stage for name, stage in worker.measured().items() if name.startswith("Si")}
    largest = list(silicon)[-1] if silicon else ""
    if "Si8" not in silicon or N_ATOMS[largest] < 512:
        return NOT_MEASURED
    small, large = silicon["Si8"], silicon[largest]
    growth = (large["peak_mib"] - small["peak_mib"]) * 1024 / (large["n_atoms"] - small["n_atoms"])
    return f"{figure(growth)} (to {largest})"


def reasons_of(worker: Any) -> dict[str, list[str]]:
    """What a worker could not be measured on, by the reason."""
    found: dict[str, list[str]] = {}
    for name, stage in worker.stages.items():
        if "reason" in stage:
            found.setdefault(stage["reason"], []).append(name)
    return found


def report(workers: list[Any], missing: dict[str, str], facts: dict[str, Any], repeats: int) -> str:
    """Markdown; `missing` says why a model asked for has no process."""
    large = ("Si64", "Si512", "Si1728", "Cu864")
    time_rows = [[w.name, w.model.what, *(cpu_us_per_atom(w.stages.get(name)) for name in large)] for w in workers]
    small_rows = [
        [
            w.name,
            wall_ms(w.stages.get("Si8")),
            wall_ms(w.stages.get("cluster27")),
            md_cell(w.stages.get("md")),
            growth_cell(w),
            figure(w.facts["resident_mib"]),
            figure(w.facts["load_wall_s"]),
            figure(max((stage["first_wall_s"] for stage in w.measured().values()), default=None)),
        ]
        for w in workers
    ]
    time_rows += [[name, MODELS[name].what, *[NOT_MEASURED] * len(large)] for name in missing]
    versions = [
        f"{w.name}: {w.model.distribution} {w.facts['version']}, torch {w.facts.get('torch', '-')}" for w in workers
    ]
    reasons = [f"{name}: {reason}" for name, reason in missing.items()]
    for w in workers:
        reasons += [f"{w.name}, {', '.join(names)}: {reason}" for reason, names in reasons_of(w).items()]
    parts = [
        "# Speed\n",
        f"Machine: {markdown_machine(facts)}.\n",
        f"One thread, float32 unless said; medians of up to {repeats} calls (three times as many below {SMALL} atoms); "
        "models asked in turn, positions rattled anew (0.05 Å) for every call.\n",
        "## Energy and forces: microseconds of CPU time per atom\n",
        markdown_table(["model", "what", *large], time_rows) + "\n",
        "## Small systems, memory, start\n",
        markdown_table(
            [
                "model",
                "Si8, ms a call",
                "27-atom cluster, ms a call",
                f"{MD_STEPS} NVE steps of {MD_SYSTEM}, s",
                "peak memory, KiB/atom",
                "resident when loaded, MiB",
                "import + load, s",
                "longest first call, s",
            ],
            small_rows,
        )
        + "\n",
        "Times in this table are wall times. Peak memory is the growth of the peak resident size from Si8 to the "
        "system named. The first call of a size holds what a compiler does then.\n",
        "## Versions\n",
        *[f"- {line}" for line in versions],
    ]
    if reasons:
        parts += ["\n## Not measured\n", *[f"- {line}" for line in reasons]]
    return "\n".join(parts)
