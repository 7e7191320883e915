"""What does each size of a model buy? One is changed at a time, all are trained alike on acetylacetone.

    python benchmarks/ablation.py --data FOLDER --work WORK
    python benchmarks/ablation.py --data FOLDER --work WORK --variants base n_pairs=2 --epochs 20

FOLDER is that of acac.py. Every variant sees the same batches for the same number of epochs, its learning rate falling
to the end; an interrupted call goes on with what WORK holds. Reported are the errors on the test frames at 300 K and
600 K, and CPU time an atom of energy and forces (one thread, not compiled, all variants in turn).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acac import SIZES, file_of
from common import RESULTS, figure, interleaved, machine, markdown_machine, markdown_table, write_results

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.models.base import EnergyModel
from ase_andersonn.training import TrainConfig, evaluate_dataset, train
from ase_andersonn.training.frames import read_file

CHANGES: dict[str, list[Any]] = {
    "n_pairs": [2, 4, 17],
    "n_edge": [16, 64],
    "l_max": [2, 4],
    "n_radial": [6],
    "n_heads": [1],
    "n_token": [64],
    "n_hidden": [96, 384],
    "n_channels": [64],
    "contraction": [0.01, 0.3, 0.9],
}
"""Of each size the values beside that of `acac.SIZES`."""
VARIANTS: dict[str, dict[str, Any]] = {"base": {}} | {
    f"{name}={value}": {name: value} for name, values in CHANGES.items() for value in values
}


def config_of(variant: str, options: argparse.Namespace) -> TrainConfig:
    changes = VARIANTS[variant]

    return TrainConfig(
        train=(str(file_of(options.data, "train_300K")),),
        output=str(options.work / variant),
        validation_fraction=0.1,
        model=SIZES | changes,
        max_epochs=options.epochs,
        batch_atoms=75,
        learning_rate=3e-3,
        energy_weight=20.0,
        energy_weight_final=200.0,
        energy_ramp_start=0.4,
        stress_weight=0.0,
        compile="auto",
    )


def measure(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained, and the errors: RMSE of the molecule's energy, meV, and of the forces, meV/Å."""
    torch.set_num_threads(1)
    run = train(config_of(variant, options), resume=True)
    model = load_model(run.folder / "last.safetensors")
    assert isinstance(model, EnergyModel)
    found: dict[str, Any] = {"weights": sum(p.numel() for p in model.parameters())}
    for temperature in ("300K", "600K"):
        frames = read_file(file_of(options.data, f"test_MD_{temperature}"))
        own = evaluate_dataset(model, frames, tolerance=1e-8).errors["all"]
        found[temperature] = 1e3 * len(frames[0]) * own.energy.rmse, 1e3 * own.forces.rmse
    return found


def times(variants: list[str], options: argparse.Namespace, copies: int = 40) -> dict[str, float]:
    """Microseconds of CPU time an atom."""
    torch.set_num_threads(1)
    start, rng = read_file(file_of(options.data, "test_MD_300K"))[0], np.random.default_rng(0)

    def call(calc: AndersoNN) -> None:
        batch = [start.copy() for _ in range(copies)]
        for atoms in batch:
            atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        calc.evaluate(batch)

    calcs = {name: AndersoNN(options.work / name / "last.safetensors", compile=False) for name in variants}
    measured = interleaved({name: partial(call, calc) for name, calc in calcs.items()}, repeats=9, warm=2)
    return {name: 1e6 * time.cpu_median / (copies * len(start)) for name, time in measured.items()}


def report(data: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in data["base"].items())
    header = ["changed", "weights", "energy, 300 K", "forces, 300 K", "energy, 600 K", "forces, 600 K", "µs/atom"]
    rows = [
        [
            name,
            f"{own['weights']:,}",
            *(figure(x, 3) for t in ("300K", "600K") for x in own[t]),
            figure(own.get("time"), 3),
        ]
        for name, own in data["variants"].items()
    ]
    return "\n".join(
        [
            "# What each size buys",
            "",
            markdown_machine(data["machine"]),
            "",
            f"The base is {sizes}; {data['epochs']} epochs of 450 acetylacetone molecules at 300 K, one seed. RMSE of",
            "the molecule's energy, meV, and of the forces, meV/Å; CPU time of energy and forces, one thread, eager.",
            "",
            markdown_table(header, rows),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    path = RESULTS / "ablation.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"variants": {}}
    data |= {"machine": machine(), "base": SIZES, "epochs": options.epochs}
    for variant in options.variants:
        # Of its own process: compiled functions of models of other sizes would pile up.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            data["variants"].setdefault(variant, {}).update(pool.apply(measure, (variant, options)))
        write_results("ablation", data, report(data))
    for variant, time in times(options.variants, options).items():
        data["variants"][variant]["time"] = time
    write_results("ablation", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
