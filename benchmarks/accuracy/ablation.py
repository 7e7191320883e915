"""What does each size of a model buy? One is changed at a time, all are trained alike on acetylacetone.

    python -m benchmarks.accuracy.ablation --data FOLDER --work WORK
    python -m benchmarks.accuracy.ablation --data FOLDER --work WORK --variants base n_pairs=4 --epochs 20

FOLDER as for acetylacetone.py. All variants see the same batches for as many epochs, the learning rate falling
to the end; an interrupted call goes on with what WORK holds. Reported are the error of the validation frames' forces,
by which sizes are to be chosen, the errors on the test frames at 300 K and 600 K, and CPU time an atom of energy and
forces (one thread, all variants in turn). Nothing is compiled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from pathlib import Path
from typing import Any

import torch

from ase_andersonn import load_model
from ase_andersonn.config import to_dict
from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.training import train
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results
from benchmarks.accuracy.acetylacetone import config_of, errors, file_of, times
from benchmarks.speed.training_worker import SIZES

CHANGES: dict[str, list[Any]] = {
    "n_pairs": [1, 4, 8],
    "n_edge": [16, 64],
    "l_max": [2, 3, 6],
    "n_radial": [4, 10],
    "n_bispectrum": [0, 32],
    "separable": [False],
    "n_message": [0, 16, 64],
    "linear": [False],
    "n_heads": [1],
    "n_token": [64],
    "n_hidden": [96, 384],
    "n_channels": [64],
    "contraction": [0.01, 0.3, 0.9],
}
"""Of each size the values beside that of `training_worker.SIZES`."""
TOGETHER: dict[str, dict[str, Any]] = {
    "n_radial=10,n_bispectrum=0,separable=False": {"n_radial": 10, "n_bispectrum": 0, "separable": False}
}
"""Changes of several sizes."""
VARIANTS: dict[str, dict[str, Any]] = (
    {"base": {}} | {f"{name}={value}": {name: value} for name, values in CHANGES.items() for value in values} | TOGETHER
)


def folder(variant: str, options: argparse.Namespace) -> Path:
    """Of a variant's run; one of more epochs is another, whose learning rate falls more slowly."""
    return Path(options.work) / f"{variant}-{options.epochs}"


def measure(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained, and the errors: RMSE of the molecule's energy, meV, and of the forces, meV/Å."""
    torch.set_num_threads(1)
    sizes = SIZES | VARIANTS[variant]
    config = config_of(
        file_of(options.data, "train_300K"), folder(variant, options), "DEQAttention", sizes, max_epochs=options.epochs
    )
    last = train(config, resume=True).log.read()[-1]
    model = last_of(folder(variant, options))
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "validation": 1e3 * last["validation"]["errors"]["all"]["forces"]["rmse"],
        **errors(model, options.data),
    }


def last_of(run: Path) -> EnergyModel:
    model = load_model(run / "last.safetensors")
    assert isinstance(model, EnergyModel)
    return model


def report(data: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in data["base"].items())
    header = [
        "changed",
        "weights",
        "forces, validation",
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
            figure(own.get("validation"), 3),
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
    base = {
        name: value for name, value in to_dict(DEQAttentionConfig((1, 6, 8), **SIZES)).items() if name != "elements"
    }
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if (data.get("base"), data.get("epochs")) != (base, options.epochs):
        data = {"base": base, "epochs": options.epochs, "variants": {}}
    data["machine"] = machine()
    for variant in options.variants:
        # Of its own process: compiled functions of models of other sizes would pile up.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            data["variants"].setdefault(variant, {}).update(pool.apply(measure, (variant, options)))
        write_results("ablation", data, report(data))
    models = {variant: last_of(folder(variant, options)) for variant in data["variants"]}
    for variant, time in times(models, options.data, 9, compiled=False).items():
        data["variants"][variant]["time"] = time
    write_results("ablation", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
