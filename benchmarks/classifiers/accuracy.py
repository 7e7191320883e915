"""How does accuracy depend on coverage (answers above a confidence), and how fast is the classifier?

    python -m benchmarks.classifiers.accuracy --data frames/mp20bt_test.extxyz frames/wbm10k.extxyz [--seeds run]

The frames carry `value`, the band gap in eV; `data/recipes/electronic/frames.py` makes them. Measured with the packaged
classifier `electronic` (or `--model`), on one thread:

- accuracy against coverage, of every file: answers below the confidence asked for are "uncertain" and left out; the
  coverage is the share of the structures that are answered. Likewise those that are unlike the training structures;
- the first label against the others: metal or not;
- with --seeds, the folder of `andersonn train-classifier config.yaml --seeds 5`: mean and spread of its runs, and their
  ensemble;
- structures a second of the first file, from `Atoms` to labels, neighbour lists and all;
- a thousand CIF files, ten of them broken, from disk to table with `andersonn classify`: time, peak memory of the
  process (Linux), and whether the ten are listed; how much of the time ASE takes to read the files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read, write
from torch import Tensor

from ase_andersonn import StructureClassifier
from ase_andersonn.classifier import Prediction
from ase_andersonn.structures.reading import read_structure
from ase_andersonn.training.classification.metrics import class_metrics
from ase_andersonn.training.classification.trainer import TEST
from benchmarks._common import (
    RESULTS,
    Times,
    drawn,
    figure,
    machine,
    markdown_machine,
    markdown_table,
    single_thread_environment,
    write_results,
)

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
COVERAGES = tuple(k / 100 for k in range(5, 101))
N_FILES, N_BROKEN = 1000, 10
CLASSIFY = """
import json, resource, sys
from ase_andersonn.cli import app
sys.argv[1:1] = ["classify"]
try:
    app()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    lines = open("/proc/self/status").read().splitlines()  # ru_maxrss would count the memory of the parent too
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "peak_mib": peak / 1024}), file=sys.stderr)
"""


def answers_of(classifier: StructureClassifier, frames: Sequence[Atoms]) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities [n, n_classes], novelties [n] and right labels [n]."""
    answers = [a for a in classifier.predict_many(frames, progress_bar=False) if isinstance(a, Prediction)]
    if len(answers) < len(frames):
        raise SystemExit(f"{len(frames) - len(answers)} of {len(frames)} frames have no label")
    probabilities = torch.tensor([list(a.probabilities.values()) for a in answers], dtype=torch.float64)
    targets = torch.tensor([classifier.labels.label_of(float(atoms.info["value"])) for atoms in frames])
    return probabilities, torch.tensor([a.out_of_distribution for a in answers]), targets


def measured(name: str, kept: Tensor, probabilities: Tensor, targets: Tensor) -> dict[str, Any]:
    """Coverage and errors of the structures that are kept (bool [n])."""
    entry: dict[str, Any] = {"kept": name, "n": int(kept.sum()), "coverage": float(kept.double().mean())}
    if entry["n"]:
        metrics = class_metrics(probabilities[kept], targets[kept])
        entry |= {"accuracy": metrics.accuracy, "balanced_accuracy": metrics.balanced_accuracy}
        entry |= {"calibration_error": metrics.calibration_error, "confusion": metrics.confusion}
    return entry


def coverage_study(probabilities: Tensor, novelty: Tensor, targets: Tensor) -> dict[str, Any]:
    """Errors of what is answered at every confidence asked for, of what is usual, and the whole curve."""
    confidence, given = probabilities.max(1)
    right = (given == targets).double()
    rows = [
        measured(f"confidence ≥ {threshold:g}" if threshold else "all", confidence >= threshold, probabilities, targets)
        for threshold in THRESHOLDS
    ]
    usual = novelty <= 1.0
    for name, kept in (
        ("uncertain at 0.7", confidence < 0.7),
        ("usual (out of distribution ≤ 1)", usual),
        ("unusual", ~usual),
        ("usual, confidence ≥ 0.8", usual & (confidence >= 0.8)),
    ):
        rows.append(measured(name, kept, probabilities, targets))
    order = confidence.argsort(descending=True, stable=True)
    running = right[order].cumsum(0) / torch.arange(1, len(right) + 1)
    curve = {f"{share:g}": float(running[round(share * len(right)) - 1]) for share in COVERAGES}
    return {"n": len(targets), "rows": rows, "curve": curve}


def first_label(probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """Errors of the answer whether a structure has the first label."""
    first = probabilities[:, 0]
    found = class_metrics(torch.stack([first, 1.0 - first], 1), (targets > 0).long())
    return {"accuracy": found.accuracy, "balanced_accuracy": found.balanced_accuracy, "auc": found.auc}


def seeds_study(folder: Path, sets: dict[str, list[Atoms]]) -> dict[str, Any]:
    """Errors of every run and of their ensemble on every file, under the names that the runs have for them."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"seed-*/{TEST}"))]
    if len(runs) < 2:
        raise SystemExit(f"{folder} has {len(runs)} finished runs; give the output of a training with --seeds")
    ensemble = StructureClassifier(str(folder / "ensemble"), device="cpu")
    found = {}
    for (name, frames), test in zip(sets.items(), runs[0], strict=True):
        probabilities, _, targets = answers_of(ensemble, frames)
        together = class_metrics(probabilities, targets).as_numbers()
        found[name] = {"runs": [run[test] for run in runs], "ensemble": together}
    return found


def throughput(classifier: StructureClassifier, frames: Sequence[Atoms], repeats: int) -> dict[str, float]:
    """CPU and wall seconds for all frames, medians, after a first round that is not counted."""
    classifier.predict_many(frames[:500], progress_bar=False)
    times = Times()
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        classifier.predict_many(frames, progress_bar=False)
        times.add(time.process_time() - cpu, time.perf_counter() - wall)
    n_atoms = sum(map(len, frames))
    return {"n": len(frames), "atoms": n_atoms, "cpu": times.cpu_median, "wall": times.wall_median}


def write_files(frames: Sequence[Atoms], folder: Path) -> list[str]:
    """`N_FILES` CIF files of frames taken evenly, of which `N_BROKEN` are cut short; names of the broken ones."""
    broken = []
    for k in range(N_FILES):
        path = folder / f"{k:04d}.cif"
        write(path, frames[k * len(frames) // N_FILES])
        if k % (N_FILES // N_BROKEN) == N_FILES // N_BROKEN // 2:
            text = path.read_text(encoding="utf-8")
            path.write_text(text[: len(text) // 3], encoding="utf-8")
            broken.append(path.name)
    return broken


def classify_command(model: str, *given: str) -> dict[str, Any]:
    """`andersonn classify` in a process of its own: seconds, peak memory in MiB, and what it says on stderr."""
    command = [sys.executable, "-c", CLASSIFY, *given, "--model", model, "--device", "cpu"]
    wall = time.perf_counter()
    done = subprocess.run(command, env=single_thread_environment(), capture_output=True, text=True, check=False)
    wall = time.perf_counter() - wall
    if done.returncode:
        raise SystemExit(f"andersonn classify failed: {done.stderr}")
    used = json.loads(done.stderr.rstrip().splitlines()[-1])
    return {"wall": wall, **used, "said": done.stderr}


def files_study(model: str, frames: Sequence[Atoms]) -> dict[str, Any]:
    """A thousand files from disk to table, beside one file, and the time of reading alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        broken = write_files(frames, folder / "in")
        one = classify_command(model, str(folder / "in" / "0000.cif"), "--out", str(folder / "one.csv"))
        many = classify_command(model, str(folder / "in"), "--out", str(folder / "labels.csv"))
        listed = [file for file in broken if f"{file}: " in many["said"]]
        n_rows = len((folder / "labels.csv").read_text(encoding="utf-8").splitlines()) - 1
        cpu = time.process_time()
        for path in sorted((folder / "in").iterdir()):
            if path.name not in broken:
                read_structure(path)
        reading = time.process_time() - cpu
    said = many["said"].count("failed: ")
    for entry in (one, many):
        del entry["said"]
    found = {"n": N_FILES, "broken": len(broken), "listed": len(listed), "failed": said, "rows": n_rows}
    return found | {"one": one, "many": many, "reading_cpu": reading}


def draw(studies: dict[str, dict[str, Any]], path: Path) -> None:
    with drawn(path, (6.4, 4.2)) as axes:
        for name, study in studies.items():
            (line,) = axes.plot([float(share) for share in study["curve"]], list(study["curve"].values()), label=name)
            for threshold, row in zip(THRESHOLDS, study["rows"], strict=False):
                if threshold in (0.6, 0.8, 0.9, 0.95):
                    axes.plot(row["coverage"], row["accuracy"], "o", color=line.get_color(), markersize=4)
                    offset = (0, 5) if name == next(iter(studies)) else (0, -11)
                    place = (row["coverage"], row["accuracy"])
                    axes.annotate(f"{threshold:g}", place, offset, textcoords="offset points", fontsize=8)
        axes.set(xlabel="coverage: share of structures answered", ylabel="accuracy of the answers")
        axes.legend(title="dots: confidence asked for")


def report(data: dict[str, Any]) -> str:
    lines = [f"# The classifier `{data['model']}`", "", markdown_machine(data["machine"])]
    for name, study in data["coverage"].items():
        rows = [
            [row["kept"], f"{row['n']:,}", f"{row['coverage']:.1%}"]
            + ([f"{row['accuracy']:.1%}", f"{row['balanced_accuracy']:.1%}"] if row["n"] else ["", ""])
            for row in study["rows"]
        ]
        header = ["answered", "structures", "coverage", "accuracy", "balanced"]
        lines += ["", f"## {name}, {study['n']:,} structures", "", markdown_table(header, rows)]
    labels = data["labels"]
    lines += ["", f"## {labels[0]} or not", ""]
    binary = [[name, *(f"{x:.3f}" for x in study["first"].values())] for name, study in data["coverage"].items()]
    lines += [markdown_table(["", "accuracy", "balanced", "area under the ROC curve"], binary)]
    for name, study in data["coverage"].items():
        counts = [[label, *row] for label, row in zip(labels, study["rows"][0]["confusion"], strict=True)]
        lines += ["", markdown_table([f"{name}, right label", *(f"given {label}" for label in labels)], counts)]
    if "seeds" in data:
        lines += ["", "## Seeds", "", seeds_table(data["seeds"])]
    speed, files = data["throughput"], data["files"]
    many, one = files["many"], files["one"]
    share = files["reading_cpu"] / many["cpu"]
    lines += [
        "",
        "Up to 0.95 the confidence sorts the answers. Beyond, it chooses among the labels more than among the answers:",
        "hardly a metal has a probability above 0.98, so that semiconductors and insulators are what is left.",
        "",
        "## Speed, one thread",
        "",
        f"From `Atoms` to labels: {figure(speed['n'] / speed['cpu'])} structures a second of CPU time "
        f"({figure(speed['n'] / speed['wall'])} of wall time), {figure(1e6 * speed['cpu'] / speed['atoms'])} µs an "
        f"atom; {speed['n']:,} structures of {speed['atoms'] / speed['n']:.1f} atoms on average.",
        "",
        f"`andersonn classify`, {files['n']:,} CIF files, {files['broken']} of them broken: {files['listed']} listed "
        f"as broken, {files['rows']:,} rows in the table.",
        "",
        markdown_table(
            ["files", "CPU time, s", "wall time, s", "peak memory, MiB"],
            [[n, *(figure(e[key]) for key in ("cpu", "wall", "peak_mib"))] for n, e in ((1, one), (files["n"], many))],
        ),
        "",
        f"ASE's reading of the files alone takes {figure(files['reading_cpu'])} s of CPU time, {share:.0%} of it.",
    ]
    return "\n".join(lines)


def seeds_table(seeds: dict[str, Any]) -> str:
    metrics = ("accuracy", "balanced_accuracy", "auc", "nll", "calibration_error")
    rows = []
    for name, study in seeds.items():
        runs = np.array([[run[metric] for metric in metrics] for run in study["runs"]])
        spread = [f"{m:.3f} ± {s:.3f}" for m, s in zip(runs.mean(0), runs.std(0, ddof=1), strict=True)]
        rows.append([f"{name}, {len(runs)} seeds, mean and spread", *spread])
        rows.append([f"{name}, their ensemble", *(f"{study['ensemble'][metric]:.3f}" for metric in metrics)])
    return markdown_table(["", "accuracy", "balanced", "area under the ROC curve", "log loss", "calibration"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="extxyz files with `value`")
    parser.add_argument("--model", default="electronic", help="name or path of a classifier")
    parser.add_argument("--seeds", type=Path, help="folder of a training from several seeds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="classifier", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    classifier = StructureClassifier(options.model, device="cpu")
    sets = {path.stem: read(path, ":", format="extxyz") for path in options.data}
    coverage = {}
    for name, frames in sets.items():
        probabilities, novelty, targets = answers_of(classifier, frames)
        coverage[name] = coverage_study(probabilities, novelty, targets) | {
            "first": first_label(probabilities, targets)
        }
    first = next(iter(sets.values()))
    data = {
        "model": Path(options.model).stem,
        "labels": classifier.labels.labels,
        "machine": machine(),
        "coverage": coverage,
        "throughput": throughput(classifier, first, options.repeats),
        "files": files_study(options.model, first),
    }
    if options.seeds:
        data["seeds"] = seeds_study(options.seeds, sets)
    draw(coverage, RESULTS / f"{options.name}.png")
    text = report(data)
    print(text)
    print(*write_results(options.name, data, text), sep="\n")


if __name__ == "__main__":
    main()
