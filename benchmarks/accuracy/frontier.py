"""Accuracy against cost: errors of trained models and the time of their energy and forces, measured in one run.

    python -m benchmarks.accuracy.frontier --data FOLDER --work WORK --mace "128x0e=c.model"
        --peer ENVIRONMENTS/mace/bin/python

FOLDER as for acetylacetone.py. Attention and Cartesian cells of several sizes are trained on its 300 K frames, each for
`--minutes`; a second call goes on with what WORK holds, and `--part train` does no more than that. MACE's models were
trained on the same frames, for as long as their names say; published errors, of longer training, stand in the table.
Each model has a process and one thread. Time is CPU time an atom of energy and forces of twenty molecules together, all
moved by about 0.02 Å at every call, in turn, the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ase.io import write

from ase_andersonn import load_model
from ase_andersonn.structures.files import read_file
from ase_andersonn.training import train
from benchmarks._common import RESULTS, drawn, figure, machine, markdown_machine, markdown_table, write_results
from benchmarks._worker import Worker, asked_in_turn, stop_all
from benchmarks.accuracy.acetylacetone import PUBLISHED, config_of, file_of
from benchmarks.speed.training_worker import OURS, SIZES

WARM = 3
"""Calls before the clock starts."""
NARROW: dict[str, Any] = {"n_edge": 16, "n_token": 16, "n_channels": 16, "n_hidden": 96, "l_max": 3}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention, narrow": ("DEQAttention", SIZES | NARROW | {"n_bispectrum": 8, "n_message": 16}),
    "attention": OURS["attention"],
    "attention, wide": OURS["attention-wide"],
    "tensors to rank 1, narrow": ("DEQCartesian", SIZES | NARROW | {"rank": 1, "n_tensors": 8, "n_products": 8}),
    "tensors to rank 2": OURS["cartesian"],
    "tensors to rank 2, bispectrum": (OURS["cartesian"][0], OURS["cartesian"][1] | {"n_bispectrum": 16}),
}


def named(item: str) -> tuple[str, Path]:
    name, _, path = item.partition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{item!r} is no NAME=FILE of a file that exists.")
    return name, Path(path)


def trained(name: str, options: argparse.Namespace) -> Path:
    """The best model of the network's run, which is gone on with until it has had its minutes."""
    run = options.work / name.replace(",", "").replace(" ", "-")
    frames = file_of(options.data, "train_300K")
    train(config_of(frames, run, *NETWORKS[name], max_minutes=options.minutes), resume=True)
    return run / "best.safetensors"


def measure(options: argparse.Namespace, ours: list[tuple[str, Path]]) -> dict[str, dict[str, Any]]:
    workers = {}
    with tempfile.TemporaryDirectory() as folder:
        for temperature in ("300K", "600K"):  # also of compressed files, which MACE's environment reads slowly
            write(Path(folder) / f"{temperature}.extxyz", read_file(file_of(options.data, f"test_MD_{temperature}")))
        for own, python, models in ((True, sys.executable, ours), (False, options.peer, options.mace)):
            for name, path in models:
                kind = "andersonn" if own else "mace"
                workers[name] = Worker(python, "accuracy.frontier_worker", kind, path, folder)
        facts = {name: worker.ask("facts") for name, worker in workers.items()}
    times = asked_in_turn(workers, WARM + options.repeats, "call")
    stop_all(workers.values())
    medians = {name: statistics.median(answer["us_per_atom"] for answer in own[WARM:]) for name, own in times.items()}
    return {name: own | {"us_per_atom": medians[name]} for name, own in facts.items()}


def picture(models: dict[str, dict[str, Any]], path: Path) -> None:
    with drawn(path, (5.2, 3.8)) as axes:
        for name, own in models.items():
            axes.plot(own["us_per_atom"], own["300K"][1], "o" if own["kind"] == "andersonn" else "s", label=name)
        axes.set(
            xscale="log", yscale="log", xlabel="energy and forces, µs/atom", ylabel="RMSE of forces at 300 K, meV/Å"
        )
        axes.legend()


def report(data: dict[str, Any]) -> str:
    header = [
        "model",
        "weights",
        "minutes",
        "energy, 300 K",
        "forces, 300 K",
        "energy, 600 K",
        "forces, 600 K",
        "µs/atom",
    ]
    rows = [
        [
            name,
            f"{own['weights']:,}",
            figure(own["minutes"]) if "minutes" in own else "",
            *(figure(x, 3) for t in ("300K", "600K") for x in own[t]),
            figure(own["us_per_atom"]),
        ]
        for name, own in data["models"].items()
    ]
    rows += [
        [f"{name}, published", "", "", *(x for t in ("300K", "600K") for x in own[t]), ""]
        for name, own in PUBLISHED.items()
    ]
    lines = ["# Accuracy against cost", "", markdown_machine(data["machine"]), ""]
    lines += ["RMSE of the molecule's energy, meV, and of the forces, meV/Å, on acetylacetone; CPU time of energy and"]
    lines += ["forces of twenty molecules together, one thread, all in turn. Minutes of training until the best epoch."]
    lines += ["", markdown_table(header, rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=22.0, help="of training, each of this project's networks")
    parser.add_argument("--part", choices=["train", "all"], default="all")
    parser.add_argument("--mace", nargs="+", type=named, default=[], help="NAME=FILE of MACE's")
    parser.add_argument("--peer", help="interpreter of an environment with mace-torch")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.mace and not options.peer:
        parser.error("MACE's models need --peer PYTHON")
    names = [*options.networks, *(name for name, _ in options.mace)]
    if len(set(names)) < len(names):
        parser.error("every model needs a name of its own")
    torch.set_num_threads(1)
    ours = [(name, trained(name, options)) for name in options.networks]
    if options.part == "train":
        return
    models = measure(options, ours)
    for name, path in ours:
        models[name]["minutes"] = load_model(path).card["training"]["minutes"]
    data = {"machine": machine(), "models": models}
    picture(data["models"], RESULTS / "frontier.png")
    write_results("frontier", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
