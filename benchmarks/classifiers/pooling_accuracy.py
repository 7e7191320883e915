"""Does detail-preserving pooling label crystals better than average, largest value or strides do?

    python -m benchmarks.classifiers.pooling_accuracy --data frames/mp20bt_train.extxyz frames/mp20bt_test.extxyz
        --work FOLDER

The image classifier is trained with every kind of pooling from every seed; within a seed all see the same crystals in
the same order, with the same first weights where they have the same. So differences are taken seed by seed, and their
mean is compared with its spread by Student's paired t test. Runs that FOLDER holds are not run again.
`data/recipes/electronic/frames.py` makes the frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.io import read, write
from scipy.stats import ttest_rel

from ase_andersonn.classifiers.layers.detail_preserving_pooling import KINDS
from ase_andersonn.training.classification import ClassifierTrainConfig, train_classifier
from ase_andersonn.training.classification.trainer import TEST
from benchmarks._common import machine, markdown_machine, markdown_table, write_results

PLAIN = ("average", "max", "strided")
METRICS = {"accuracy": 100.0, "balanced_accuracy": 100.0, "nll": 1.0}
"""With the unit that they are given in: percent, nat."""


def subset(path: Path, n: int, work: Path) -> str:
    """`n` structures of a file, taken evenly, as a file of their own."""
    chosen = work / f"{path.stem}_{n}.extxyz"
    if not chosen.exists():
        frames = read(path, ":")
        write(chosen, frames[:: max(len(frames) // n, 1)][:n], format="extxyz")
    return str(chosen)


def run(kind: str, seed: int, files: tuple[str, str], options: argparse.Namespace) -> dict[str, float]:
    """Errors on the test crystals of one run."""
    output = options.work / f"{kind}-{seed}"
    if not (output / TEST).exists():
        config = ClassifierTrainConfig(
            train=(files[0],),
            output=str(output),
            architecture="ImageClassifier",
            model={"pooling": kind},
            test={"crystals": files[1]},
            max_epochs=options.epochs,
            seed=seed,
        )
        train_classifier(config, resume=True, progress_bar=False)
    found = json.loads((output / TEST).read_text())["crystals"]
    return {name: float(found[name]) for name in METRICS}


def compared(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Every detail-preserving kind beside every plain one."""
    rows = []
    for kind in (name for name in runs if name not in PLAIN):
        for plain in PLAIN:
            row: dict[str, Any] = {"kind": kind, "plain": plain}
            for metric in METRICS:
                one, other = (np.array([seed[metric] for seed in runs[name]]) for name in (kind, plain))
                row[metric] = {"difference": float((one - other).mean()), "p": float(ttest_rel(one, other).pvalue)}
            rows.append(row)
    return rows


def report(data: dict[str, Any]) -> str:
    lines = ["# Labels of crystals by kind of pooling", "", markdown_machine(data["machine"]), ""]
    lines += [
        f"The image classifier, {data['train']:,} crystals, {data['epochs']} epochs, {data['seeds']} seeds; "
        f"{data['test']:,} test crystals. Mean and standard deviation over the seeds.",
        "",
    ]
    rows = []
    for kind, runs in data["runs"].items():
        values = {name: unit * np.array([seed[name] for seed in runs]) for name, unit in METRICS.items()}
        rows.append([kind, *(f"{x.mean():.3g} ± {x.std(ddof=1):.1g}" for x in values.values())])
    lines += [markdown_table(["pooling", "accuracy, %", "balanced accuracy, %", "log loss"], rows), ""]
    lines += ["Differences seed by seed, with the p of the paired t test:", ""]
    rows = [
        [
            f"{row['kind']} − {row['plain']}",
            *(f"{unit * row[m]['difference']:+.2g} (p {row[m]['p']:.2g})" for m, unit in METRICS.items()),
        ]
        for row in data["compared"]
    ]
    lines += [markdown_table(["", "accuracy, %", "balanced accuracy, %", "log loss"], rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs=2, type=Path, required=True, help="frames for training and test")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=2000, help="crystals")
    parser.add_argument("--test", type=int, default=2000, help="crystals")
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    first, second = (
        subset(path, n, options.work) for path, n in zip(options.data, (options.train, options.test), strict=True)
    )
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in options.kinds}
    for seed in range(options.seeds):
        for kind in options.kinds:
            runs[kind].append(run(kind, seed, (first, second), options))
            print(seed, kind, runs[kind][-1], flush=True)
    sizes = {name: getattr(options, name) for name in ("train", "test", "epochs", "seeds")}
    data = {"machine": machine(), **sizes, "runs": runs, "compared": compared(runs)}
    write_results("pooling_accuracy", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
