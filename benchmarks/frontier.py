"""Accuracy against cost: errors of trained models and the time of their energy and forces, measured in one run.

    python benchmarks/frontier.py --data FOLDER --ours small=a.safetensors wide=b.safetensors \
        --mace "128x0e=c.model" --peer ENVIRONMENTS/mace/bin/python

FOLDER is that of acac.py, its files not compressed; the models are trained on its frames at 300 K. Each has a process
and one thread. Time is CPU time an atom of energy and forces of twenty molecules together, in turn, the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from common import (
    REPOSITORY,
    RESULTS,
    figure,
    machine,
    markdown_machine,
    markdown_table,
    rotated,
    single_thread_environment,
    write_results,
)

WORKER = Path(__file__).resolve().with_name("frontier_worker.py")
WARM = 25
"""Calls before the clock starts: this project's calculator compiles after some work."""


class Worker:
    """A model's process."""

    def __init__(self, python: str, kind: str, model: Path, folder: Path) -> None:
        environment = single_thread_environment() | {"PYTHONPATH": str(REPOSITORY) if kind == "andersonn" else ""}
        self.process = subprocess.Popen(
            [python, str(WORKER), kind, str(model), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.facts: dict[str, Any] = self._answer() | {"kind": kind}
        self.times: list[float] = []

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError("a model's process ended; run frontier_worker.py by itself to see why.")

    def call(self) -> float:
        """Microseconds an atom."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._answer()["us_per_atom"])


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    named = [("andersonn", sys.executable, item) for item in options.ours]
    named += [("mace", options.peer, item) for item in options.mace]
    workers = {}
    for kind, python, item in named:
        name, path = item.split("=", 1)
        workers[name] = Worker(python, kind, Path(path), options.data)
    for worker in workers.values():
        for _ in range(WARM):
            worker.call()
    for turn in range(options.repeats):
        for name in rotated(list(workers), turn):
            workers[name].times.append(workers[name].call())
    return {name: own.facts | {"us_per_atom": statistics.median(own.times)} for name, own in workers.items()}


def picture(models: dict[str, dict[str, Any]], path: Path) -> None:
    drawing, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for name, own in models.items():
        axes.plot(own["us_per_atom"], own["300K"][1], "o" if own["kind"] == "andersonn" else "s", label=name)
    axes.set(xscale="log", yscale="log", xlabel="energy and forces, µs/atom", ylabel="RMSE of forces at 300 K, meV/Å")
    axes.legend()
    drawing.savefig(path, dpi=130)
    plt.close(drawing)


def report(data: dict[str, Any]) -> str:
    header = ["trained at 300 K", "energy, 300 K", "forces, 300 K", "energy, 600 K", "forces, 600 K", "µs/atom"]
    rows = [
        [name, *(figure(x, 3) for t in ("300K", "600K") for x in own[t]), figure(own["us_per_atom"])]
        for name, own in data["models"].items()
    ]
    lines = ["# Accuracy against cost", "", markdown_machine(data["machine"]), ""]
    lines += ["RMSE of the molecule's energy, meV, and of the forces, meV/Å, on acetylacetone; CPU time of energy and"]
    lines += ["forces of twenty molecules together, one thread, all in turn.", "", markdown_table(header, rows), ""]
    return "\n".join([*lines, "![frontier](frontier.png)", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ours", nargs="+", default=[], help="NAME=FILE of this project's models")
    parser.add_argument("--mace", nargs="+", default=[], help="NAME=FILE of MACE's")
    parser.add_argument("--peer", help="interpreter of an environment with mace-torch")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.mace and not options.peer:
        parser.error("MACE's models need --peer PYTHON")
    data = {"machine": machine(), "models": measure(options)}
    picture(data["models"], RESULTS / "frontier.png")
    write_results("frontier", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
