"""What is it worth to begin a training with a model of another level of theory?

    python -m benchmarks.accuracy.fine_tuning --data FOLDER --work WORK --molecules aspirin ethanol --frames 50 950
        --minutes 5

The data are rMD17's, as for published.py: molecular dynamics labelled with DFT (PBE). A run sees the first `--frames`
frames of split 01 (a tenth of them chooses its best epoch) and has `--minutes` of wall time; once with
random weights, once beginning with `organic`, which learnt GFN2-xTB. Errors are of the 1,000 test frames; that of
`organic` as it is has the mean difference of the energies taken off. Neither aspirin nor uracil is among the molecules
it learnt; ethanol is. An interrupted call goes on with what WORK holds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ase_andersonn import load_model
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.training import TrainConfig, evaluate_dataset, train
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results
from benchmarks.accuracy.acetylacetone import begun_with, config_of
from benchmarks.accuracy.published import RMD17, SETS, Frames, Pair, errors, frames_of, training_file
from benchmarks.speed.training_worker import OURS

INITIAL = "organic"
WAYS = {"random weights": None, INITIAL: INITIAL}


def config(path: Path, output: Path, initial: str | None, minutes: float) -> TrainConfig:
    """Of one run: the same network, batches and loss; the learning rate of what was trained is `FINE_TUNING_RATE`."""
    anew = config_of(path, output, *OURS["attention"], max_minutes=minutes)
    return anew if initial is None else begun_with(anew, initial)


def fine_tuned(options: argparse.Namespace, molecule: str, n: int, way: str) -> EnergyModel:
    """The best model of one run."""
    path = training_file(options.work / f"{molecule}-{n}", options.data, SETS[f"rmd17-{molecule}"], n)
    run = path.parent / f"{way.replace(' ', '-')}-{options.minutes:g}"
    train(config(path, run, WAYS[way], options.minutes), resume=True)
    return known(run / "best.safetensors")


def known(model: str | Path) -> EnergyModel:
    found = load_model(model)
    assert isinstance(found, EnergyModel)
    return found


def untuned(frames: Frames) -> Pair:
    """MAE of the initial model, energies less their mean difference, meV of the molecule and meV/Å."""
    found = evaluate_dataset(known(INITIAL), frames)
    energies = found.predicted.energy - found.labelled.energy
    deviation = (energies - energies.mean()).abs().mean()
    return 1e3 * float(deviation), 1e3 * found.errors["all"].forces.mae


def measure(options: argparse.Namespace, molecule: str) -> dict[str, Any]:
    """MAE of all runs of a molecule."""
    chosen = SETS[f"rmd17-{molecule}"]
    frames = frames_of(options.data, chosen, "test")
    rows: dict[str, Any] = {"as it is": untuned(frames)}
    for n in options.frames:
        for way in WAYS:
            rows[f"{n}, {way}"] = errors(fine_tuned(options, molecule, n, way), frames, chosen)["mae"]
    return rows


def report(data: dict[str, Any]) -> str:
    header = ["molecule", *next(iter(data["molecules"].values())), "MACE, 950 (published)"]
    rows = [
        [name, *(" / ".join(figure(x) for x in pair) for pair in (*own.values(), RMD17[name]))]
        for name, own in data["molecules"].items()
    ]
    lines = ["# Fine-tuning", "", markdown_machine(data["machine"]), ""]
    lines += [f"MAE of the molecule's energy, meV, and of the forces, meV/Å; {data['minutes']:g} minutes of training"]
    lines += [f"on as many frames, with random weights or beginning with `{INITIAL}`.", ""]
    return "\n".join([*lines, markdown_table(header, rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--molecules", nargs="+", choices=RMD17, default=["aspirin", "ethanol", "uracil"])
    parser.add_argument("--frames", nargs="+", type=int, default=[50, 950])
    parser.add_argument("--minutes", type=float, default=5.0, help="of each training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "fine_tuning.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if (data.get("minutes"), data.get("frames")) != (options.minutes, options.frames):
        data = {"minutes": options.minutes, "frames": options.frames, "molecules": {}}
    data["machine"] = machine()
    for molecule in options.molecules:
        data["molecules"][molecule] = measure(options, molecule)
        write_results("fine_tuning", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
