"""Acetylacetone: errors at the temperature of the training and above it, and two paths that no frame of it shows.

    # train what is not trained, then all parts
    python -m benchmarks.accuracy.acetylacetone --data FOLDER --work WORK
    python -m benchmarks.accuracy.acetylacetone --data FOLDER --work WORK --models cartesian --minutes 120
    python -m benchmarks.accuracy.acetylacetone --data FOLDER --work WORK --part errors time

FOLDER holds the extended XYZ files of Batatia et al., arXiv 2205.06643 (github.com/davkovacs/BOTNet-datasets, MIT),
compressed or not: train_300K, test_MD_300K, test_MD_600K, test_dihedral, test_H_transfer. Each model is trained for
`--minutes` on 450 of the 500 frames at 300 K, the other 50 choosing its best epoch; a second call goes on with what
WORK holds. `organic` begins with the weights of that packaged model, the others with random ones. It learnt other
molecules at another level of theory, and acetylacetone's diketone, which is not the tautomer of these frames.

- errors: RMSE of the molecule's energy and of the forces on the MD test frames, beside published ones;
- curves: relative energies along the dihedral and the hydrogen transfer, beside DFT;
- time: energy and forces of one molecule in the batch, CPU time an atom on one thread, all models in turn.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.files import read_file
from ase_andersonn.training import TrainConfig, evaluate_dataset, train
from benchmarks._common import (
    RESULTS,
    drawn,
    figure,
    interleaved,
    machine,
    markdown_machine,
    markdown_table,
    write_results,
)
from benchmarks.speed.training_worker import OURS

PUBLISHED = {"MACE": {"300K": (0.9, 5.1), "600K": (4.6, 22.4)}, "NequIP": {"300K": (0.81, 5.90), "600K": (6.04, 27.8)}}
"""RMSE, meV and meV/Å, trained on the same 450 + 50 frames: Batatia et al., arXiv 2206.07697, table 3."""
FINE_TUNED = "organic"
FINE_TUNING_RATE = 1e-3
"""Peak learning rate of what begins with trained weights."""
CURVES = {"dihedral": "dihedral angle, degrees", "H_transfer": "image"}
PARTS = ("errors", "curves", "time")
COPIES = 20
"""Molecules in the batch that is timed."""


def file_of(folder: Path, name: str) -> Path:
    for suffix in (".extxyz", ".xyz", ".extxyz.xz", ".xyz.xz"):
        if (folder / f"{name}{suffix}").exists():
            return folder / f"{name}{suffix}"
    raise FileNotFoundError(f"{folder} has no {name}.extxyz, also not compressed.")


def config_of(frames: Path, output: Path, architecture: str, sizes: dict[str, Any], **others: Any) -> TrainConfig:
    """Of a run on the frames of a file; `others` are further fields, `max_minutes` or `max_epochs` among them."""
    return TrainConfig(
        train=(str(frames),),
        output=str(output),
        validation_fraction=0.1,
        architecture=architecture,
        model=sizes,
        batch_atoms=75,
        learning_rate=3e-3,
        energy_weight=20.0,
        energy_weight_final=200.0,
        energy_ramp_start=0.4,
        stress_weight=0.0,
        **others,
    )


def begun_with(config: TrainConfig, initial: str) -> TrainConfig:
    """The same run with a trained model's weights at the start."""
    return replace(config, initial=initial, model={}, learning_rate=FINE_TUNING_RATE)


def trained(name: str, options: argparse.Namespace) -> EnergyModel:
    """The best model of the run, which is gone on with until it has had its minutes."""
    frames, kind = file_of(options.data, "train_300K"), OURS.get(name, OURS["attention"])
    config = config_of(frames, options.work / name, *kind, max_minutes=options.minutes, compile=options.compile)
    run = train(begun_with(config, FINE_TUNED) if name == FINE_TUNED else config, resume=True)
    model = load_model(run.folder / "best.safetensors")
    assert isinstance(model, EnergyModel)
    return model


def errors(model: EnergyModel, folder: Path) -> dict[str, tuple[float, float]]:
    """RMSE of the molecule's energy, meV, and of the forces, meV/Å."""
    found = {}
    for temperature in ("300K", "600K"):
        frames = read_file(file_of(folder, f"test_MD_{temperature}"))
        report = evaluate_dataset(model, frames, tolerance=1e-8).errors["all"]
        found[temperature] = 1e3 * len(frames[0]) * report.energy.rmse, 1e3 * report.forces.rmse
    return found


def curve(model: EnergyModel, frames: list[Atoms]) -> dict[str, list[float]]:
    """Energies of the frames less their lowest, eV, of DFT and of the model."""
    ours = np.array([result["energy"] for result in AndersoNN(model, compile=False).evaluate(frames, forces=False)])
    dft = np.array([atoms.get_potential_energy() for atoms in frames])
    lowest = int(dft.argmin())
    return {"DFT": (dft - dft[lowest]).tolist(), "model": (ours - ours[lowest]).tolist()}


def times(models: dict[str, EnergyModel], folder: Path, repeats: int, *, compiled: bool) -> dict[str, float]:
    """Microseconds of CPU time an atom of energy and forces, of a batch of molecules, each call a cold start."""
    torch.set_num_threads(1)
    start, rng = read_file(file_of(folder, "test_MD_300K"))[0], np.random.default_rng(0)

    def call(calc: AndersoNN) -> None:
        batch = [start.copy() for _ in range(COPIES)]
        for atoms in batch:
            atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        calc.evaluate(batch)

    functions = {name: partial(call, AndersoNN(model, compile=compiled)) for name, model in models.items()}
    measured = interleaved(functions, repeats=repeats, warm=3)
    return {name: 1e6 * time.cpu_median / (COPIES * len(start)) for name, time in measured.items()}


def picture(curves: dict[str, dict[str, Any]], path: Path) -> None:
    with drawn(path, (10, 3.6), columns=len(CURVES)) as axes:
        for axis, (name, label) in zip(axes, CURVES.items(), strict=True):
            data = curves[name]
            axis.plot(data["x"], data["DFT"], "ko", ms=3, label="DFT")
            for model, energies in data["models"].items():
                axis.plot(data["x"], energies, label=model)
            axis.set(xlabel=label, ylabel="energy, eV")
            axis.legend()


def report(data: dict[str, Any]) -> str:
    lines = ["# Acetylacetone", "", f"The last on: {markdown_machine(data['machine'])}", ""]
    if "errors" in data:
        header = [
            "trained at 300 K",
            "on",
            "weights",
            "best epoch after, min",
            "energy, 300 K",
            "forces, 300 K",
            "energy, 600 K",
            "forces, 600 K",
        ]
        rows = [
            [
                name,
                f"{own['machine']['processor']}{'' if own.get('eager', True) else ', compiled'}",
                f"{own['weights']:,}",
                figure(own["minutes"], 3),
                *(figure(x, 3) for t in ("300K", "600K") for x in own[t]),
            ]
            for name, own in data["errors"].items()
        ]
        rows += [
            [name, "", "", "published", *(x for t in ("300K", "600K") for x in own[t])]
            for name, own in PUBLISHED.items()
        ]
        lines += ["RMSE of the molecule's energy, meV, and of the forces, meV/Å.", "", markdown_table(header, rows), ""]
    if "curves" in data:
        rows = [
            [name, model, figure(1e3 * float(np.abs(np.subtract(energies, own["DFT"])).max()), 3)]
            for name, own in data["curves"].items()
            for model, energies in own["models"].items()
        ]
        header = ["curve", "model", "largest error of the relative energy, meV"]
        lines += ["![Curves](acac.png)", "", markdown_table(header, rows), ""]
    if "time" in data:
        rows = [[name, figure(value, 3)] for name, value in data["time"].items()]
        lines += [markdown_table(["energy and forces, one thread", "CPU time, µs/atom"], rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--models", nargs="+", choices=[*OURS, FINE_TUNED], default=["attention-wide", "cartesian"])
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, each model")
    parser.add_argument("--compile", action="store_true", help="compile the training steps, which pays in long runs")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    path = RESULTS / "acac.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    data["machine"] = machine()
    torch.set_num_threads(1)
    models = {name: trained(name, options) for name in options.models}
    if "errors" in options.part:
        for name, model in models.items():
            weights = sum(p.numel() for p in model.parameters())
            data.setdefault("errors", {})[name] = {
                "machine": machine(),
                "minutes": model.card["training"]["minutes"],
                "weights": weights,
                **errors(model, options.data),
            }
    if "curves" in options.part:
        for name in CURVES:
            frames = read_file(file_of(options.data, f"test_{name}"))
            x = [atoms.info["dihedral_angle"] for atoms in frames] if name == "dihedral" else list(range(len(frames)))
            found = {model: curve(own, frames) for model, own in models.items()}
            entry = data.setdefault("curves", {}).setdefault(name, {"models": {}})
            entry.update(x=x, DFT=next(iter(found.values()))["DFT"])
            entry["models"].update({model: own["model"] for model, own in found.items()})
        picture(data["curves"], RESULTS / "acac.png")
    if "time" in options.part:
        data.setdefault("time", {}).update(times(models, options.data, options.repeats, compiled=True))
    write_results("acac", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
