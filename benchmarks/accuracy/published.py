"""Errors on data sets whose errors others have published.

    python -m benchmarks.accuracy.published --data FOLDER --work WORK --sets rmd17-aspirin water --minutes 30
    # of what is trained already
    python -m benchmarks.accuracy.published --data FOLDER --work WORK --sets all --minutes 0

Each set (`rmd17-together`: ten of them) gets a model of its own, trained for `--minutes` on the training frames alone
(a share of them chooses the best epoch); a second call with more minutes goes on with what WORK holds. The sizes for
molecules are those that acetylacetone's validation frames chose. FOLDER has a folder for each of

- rmd17: revised MD17, `MOLECULE_train01.npz` and `MOLECULE_test01.npz` (numbers, positions, energy, forces; Å and eV),
  split 01, 950 + 50 frames (Christensen and von Lilienfeld 2020, CC0); `rmd17-together` is one model of all ten;
- water_dpmd: liquid water of DeePMD-kit, `water_train.extxyz`, `water_test.extxyz`;
- graphene_dft: Dong et al., J. Appl. Phys. 135, 161101 (2024), `graphene_*.extxyz`, the test frames with the
  predictions of the authors' NEP;
- alloys_fitsnap: InP (Cusentino et al. 2020) and W–Be (Wood et al. 2019) of FitSNAP, `InP_*.extxyz`, `WBe_*.extxyz`.

Extended XYZ may be compressed by xz.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn import load_model
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.files import read_file
from ase_andersonn.training import evaluate_dataset, train
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results
from benchmarks.accuracy.acetylacetone import config_of, file_of
from benchmarks.accuracy.graphene import FAR, residuals
from benchmarks.speed.training_worker import OURS

RMD17 = {
    "aspirin": (2.2, 6.6),
    "azobenzene": (1.2, 3.0),
    "benzene": (0.4, 0.3),
    "ethanol": (0.4, 2.1),
    "malonaldehyde": (0.8, 4.1),
    "naphthalene": (0.5, 1.6),
    "paracetamol": (1.3, 4.8),
    "salicylic": (0.9, 3.1),
    "toluene": (0.5, 1.5),
    "uracil": (0.5, 2.1),
}
"""MAE of MACE, meV and meV/Å: Batatia et al., arXiv 2206.07697, table 1."""
Frames = list[Atoms]
Pair = tuple[float, float]


@dataclass(frozen=True)
class DataSet:
    """A data set and what others reached on it.

    Attributes:
        folder: below the data's folder.
        name: of its files.
        statistic: `mae` or `rmse`.
        others: errors of energy and forces by method, meV/atom (meV of a molecule) and meV/Å.
        molecule: whether energies are per molecule.
        batch_atoms: atoms in a batch.
        validation: share of the training frames that choose the best epoch.
        stress_weight: weight of the stress in the loss.
        network: of `training_worker.OURS`.
        parts: sets that one model learns together; each is tested by itself.
    """

    folder: str
    name: str
    statistic: str
    others: dict[str, Pair] = field(default_factory=dict)
    molecule: bool = False
    batch_atoms: int = 220
    validation: float = 0.05
    stress_weight: float = 0.0
    network: str = "attention"
    parts: tuple[str, ...] = ()


TOGETHER = "rmd17-together"
SETS = {
    f"rmd17-{name}": DataSet(
        "rmd17", name, "mae", {"MACE": errors}, molecule=True, batch_atoms=105, network="attention-wide"
    )
    for name, errors in RMD17.items()
} | {
    TOGETHER: DataSet(
        "rmd17", "", "mae", molecule=True, batch_atoms=150, parts=tuple(f"rmd17-{name}" for name in RMD17)
    ),
    "water": DataSet("water_dpmd", "water", "rmse"),
    "graphene": DataSet("graphene_dft", "graphene", "rmse"),
    "InP": DataSet("alloys_fitsnap", "InP", "mae", {"SNAP, its training frames": (3.31, 67.5)}, stress_weight=0.1),
    "W-Be": DataSet("alloys_fitsnap", "WBe", "mae", {"SNAP, its training frames": (117.0, 307.0)}),
}


def of_arrays(path: Path) -> Frames:
    """Frames of a file of arrays: `numbers` [n_atoms], `positions`, `energy`, `forces` [n_frames, ...]."""
    with np.load(path) as arrays:
        numbers, positions, energies, forces = (arrays[name] for name in ("numbers", "positions", "energy", "forces"))
    frames = []
    for x, energy, force in zip(positions, energies, forces, strict=True):
        atoms = Atoms(numbers, positions=x.astype(float))
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=force.astype(float))
        frames.append(atoms)
    return frames


def frames_of(data: Path, chosen: DataSet, split: str) -> Frames:
    folder = data / chosen.folder
    if chosen.molecule:
        return of_arrays(folder / f"{chosen.name}_{split}01.npz")
    return read_file(file_of(folder, f"{chosen.name}_{split}"))


def training_file(folder: Path, data: Path, chosen: DataSet, n: int | None = None) -> Path:
    """The first `n` training frames, or all, as extended XYZ, written whole or not at all."""
    path, partial = folder / "train.extxyz", folder / "train.partial.extxyz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = [SETS[part] for part in chosen.parts] or [chosen]
        write(partial, [frame for part in parts for frame in frames_of(data, part, "train")[:n]])
        partial.replace(path)
    return path


def best(folder: Path) -> Path:
    """Where the run of a set keeps its best model."""
    return folder / "run" / "best.safetensors"


def trained(name: str, options: argparse.Namespace) -> EnergyModel:
    """The best model of the set's run, which is gone on with until it has had its minutes."""
    folder = options.work / name
    if options.minutes > 0:
        chosen = SETS[name]
        config = replace(
            config_of(training_file(folder, options.data, chosen), folder / "run", *OURS[chosen.network]),
            validation_fraction=chosen.validation,
            batch_atoms=chosen.batch_atoms,
            stress_weight=chosen.stress_weight,
            max_minutes=options.minutes,
            compile=options.compile,
        )
        train(config, resume=True)
    model = load_model(best(folder))
    assert isinstance(model, EnergyModel)
    return model


def errors(model: EnergyModel, frames: Frames, chosen: DataSet) -> dict[str, Pair]:
    """MAE and RMSE of energy and forces, meV/atom (meV of a molecule) and meV/Å."""
    row = evaluate_dataset(model, frames, tolerance=1e-8).errors["all"]
    atoms = len(frames[0]) if chosen.molecule else 1
    return {s: (1e3 * atoms * getattr(row.energy, s), 1e3 * getattr(row.forces, s)) for s in ("mae", "rmse")}


def errors_of_nep(frames: Frames) -> Pair:
    """RMSE of the predictions that come with the frames, meV/atom and meV/Å."""
    row = residuals(frames, [(atoms.info["nep_energy"], atoms.arrays["nep_forces"]) for atoms in frames])
    return row["energy_rmse"], row["forces_rmse"]


def far_from_training(frames: Frames) -> Frames:
    """The published split holds near copies of training frames."""
    return [atoms for atoms in frames if atoms.info["train_nn_distance"] > FAR]


SELECTIONS: dict[str, dict[str, Callable[[Frames], Frames]]] = {"graphene": {f"graphene, > {FAR} Å": far_from_training}}


def tests_of(name: str) -> list[tuple[str, DataSet, Callable[[Frames], Frames]]]:
    """What a set's model is tested on: title, set, and what is selected of its test frames."""
    if SETS[name].parts:
        return [(f"{part}, one model of all", SETS[part], list) for part in SETS[name].parts]
    return [(title, SETS[name], select) for title, select in {name: list, **SELECTIONS.get(name, {})}.items()]


def measured(name: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Errors of a set's model on its test frames, on selections of them, or on those of each of its parts."""
    model = trained(name, options)
    found = {}
    for title, chosen, select in tests_of(name):
        frames = select(frames_of(options.data, chosen, "test"))
        others = dict(chosen.others)
        if "nep_energy" in frames[0].info:
            others["NEP, same frames"] = errors_of_nep(frames)
        found[title] = {
            "machine": machine(),
            "network": SETS[name].network,
            "weights": sum(p.numel() for p in model.parameters()),
            "minutes": model.card["training"]["minutes"],
            "frames": len(frames),
            "statistic": chosen.statistic,
            "molecule": chosen.molecule,
            **errors(model, frames, chosen),
            "others": others,
        }
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    header = [
        "test set",
        "frames",
        "network",
        "best epoch after, min",
        "error",
        "energy",
        "forces",
        "others: energy, forces",
    ]
    lines = []
    for name, row in rows.items():
        energy, forces = row[row["statistic"]]
        others = "; ".join(f"{other}: {figure(e)}, {figure(f)}" for other, (e, f) in row["others"].items())
        unit = "meV" if row["molecule"] else "meV/atom"
        own = [f"{figure(energy)} {unit}", figure(forces), others or "none given here"]
        lines.append([name, row["frames"], row["network"], figure(row["minutes"], 3), row["statistic"].upper(), *own])
    return markdown_table(header, lines)


def sets_of(options: argparse.Namespace) -> list[str]:
    """The sets asked for; those with a model where nothing is to be trained."""
    names = list(SETS) if "all" in options.sets else list(options.sets)
    return [name for name in names if options.minutes > 0 or best(options.work / name).exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--sets", nargs="+", choices=[*SETS, "all"], default=["all"])
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, each set")
    parser.add_argument("--compile", action="store_true", help="compile the training steps, which pays in long runs")
    options = parser.parse_args()
    path = RESULTS / "published.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"sets": {}}
    for name in sets_of(options):
        found = measured(name, options)
        data["sets"].update(found)
        last = markdown_machine(next(iter(found.values()))["machine"])
        text = ["# Published data sets", f"Forces in meV/Å. The last on: {last}", table(data["sets"])]
        write_results("published", data, "\n\n".join(text))
    print(table(data["sets"]))


if __name__ == "__main__":
    main()
