"""Accuracy against cost: errors of trained models and the time of their energy and forces, measured in one run.

    python benchmarks/frontier.py --data FOLDER --ours small=a.safetensors wide=b.safetensors \
        --mace "128x0e=c.model" --peer ENVIRONMENTS/mace/bin/python

FOLDER is that of acac.py; the models were trained on its frames at 300 K, for as long as is said beside the figures;
published errors, of longer training, stand in the table. Each model has a process and one thread. Time is CPU time an
atom of energy and forces of twenty molecules together, all moved by about 0.02 Å at every call, in turn, the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from acac import PUBLISHED, file_of
from ase.io import write
from common import RESULTS, figure, machine, markdown_machine, markdown_table, rotated, write_results
from worker import Worker

from ase_andersonn.training.frames import read_file

WARM = 3
"""Calls before the clock starts."""


def named(item: str) -> tuple[str, Path]:
    name, _, path = item.partition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{item!r} is no NAME=FILE of a file that exists.")
    return name, Path(path)


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    workers = {}
    with tempfile.TemporaryDirectory() as folder:
        for temperature in ("300K", "600K"):  # also of compressed files, which MACE's environment reads slowly
            write(Path(folder) / f"{temperature}.extxyz", read_file(file_of(options.data, f"test_MD_{temperature}")))
        for own, python, models in ((True, sys.executable, options.ours), (False, options.peer, options.mace)):
            for name, path in models:
                kind = "andersonn" if own else "mace"
                workers[name] = Worker(python, "frontier_worker.py", kind, path, folder, own=own)
    for worker in workers.values():
        for _ in range(WARM):
            worker.ask()
    times: dict[str, list[float]] = {name: [] for name in workers}
    for turn in range(options.repeats):
        for name in rotated(list(workers), turn):
            times[name].append(workers[name].ask()["us_per_atom"])
    for worker in workers.values():
        worker.stop()
    return {name: own.facts | {"us_per_atom": statistics.median(times[name])} for name, own in workers.items()}


def picture(models: dict[str, dict[str, Any]], path: Path) -> None:
    drawing, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for name, own in models.items():
        axes.plot(own["us_per_atom"], own["300K"][1], "o" if own["kind"] == "andersonn" else "s", label=name)
    axes.set(xscale="log", yscale="log", xlabel="energy and forces, µs/atom", ylabel="RMSE of forces at 300 K, meV/Å")
    axes.legend()
    drawing.savefig(path, dpi=130)
    plt.close(drawing)


def report(data: dict[str, Any]) -> str:
    header = ["model", "weights", "energy, 300 K", "forces, 300 K", "energy, 600 K", "forces, 600 K", "µs/atom"]
    rows = [
        [
            name,
            f"{own['weights']:,}",
            *(figure(x, 3) for t in ("300K", "600K") for x in own[t]),
            figure(own["us_per_atom"]),
        ]
        for name, own in data["models"].items()
    ]
    rows += [
        [f"{name}, published", "", *(x for t in ("300K", "600K") for x in own[t]), ""]
        for name, own in PUBLISHED.items()
    ]
    lines = ["# Accuracy against cost", "", markdown_machine(data["machine"]), ""]
    lines += ["RMSE of the molecule's energy, meV, and of the forces, meV/Å, on acetylacetone; CPU time of energy and"]
    lines += ["forces of twenty molecules together, one thread, all in turn.", "", markdown_table(header, rows), ""]
    return "\n".join([*lines, "![frontier](frontier.png)", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ours", nargs="+", type=named, default=[], help="NAME=FILE of this project's models")
    parser.add_argument("--mace", nargs="+", type=named, default=[], help="NAME=FILE of MACE's")
    parser.add_argument("--peer", help="interpreter of an environment with mace-torch")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.mace and not options.peer:
        parser.error("MACE's models need --peer PYTHON")
    names = [name for name, _ in (*options.ours, *options.mace)]
    if len(set(names)) < len(names):
        parser.error("every model needs a name of its own")
    data = {"machine": machine(), "models": measure(options)}
    picture(data["models"], RESULTS / "frontier.png")
    write_results("frontier", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
