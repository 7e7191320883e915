"""How fast is an energy-and-forces call, and what does it hold in memory? This project beside other potentials.

Every model lives in a process of its own, in its own virtual environment, with one thread; they are asked in turn, so
that a busy spell of the machine hits all alike, and the median is kept. Every call gets newly rattled positions. What
is not installed, fails, or would take more time or memory than allowed is reported as not measured, with the reason.

    python -m benchmarks.speed.inference --peers ENVIRONMENTS

where ENVIRONMENTS/mace/bin/python, ENVIRONMENTS/chgnet/bin/python, ... exist (see benchmarks/README.md).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._common import machine, rotated, write_results
from benchmarks._worker import NotMeasuredError, Worker, command_of, environment
from benchmarks.speed.inference_report import MD_STEPS, MD_SYSTEM, N_ATOMS, SMALL, report
from benchmarks.speed.models import MODELS

ELEMENTS_OF = {name: ("Si", "Cu") if name == "cluster27" else (name[:2],) for name in N_ATOMS}
WORKER = "speed.inference_worker"
LONGEST_ANSWER_S = 300.0


class Measured(Worker):
    """A model's process, and in `stages` what was measured of it so far.

    Args:
        name: in `models.MODELS`.
        python: interpreter of its environment.
        log: file for what it writes to stderr.
        file: compiled model, made where it does not exist; None for a model that needs none.
    """

    def __init__(self, name: str, python: str, log: Path, file: Path | None) -> None:
        self.name, self.model = name, MODELS[name]
        self.facts: dict[str, Any] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.spent_s = 0.0
        arguments = [name, *([file] if file else [])]
        with log.open("w") as stderr:
            if file is not None and not file.exists():
                command = command_of(python, WORKER, *arguments, "--prepare")
                streams: dict[str, Any] = {"stdout": stderr, "stderr": stderr, "env": environment()}
                try:
                    subprocess.run(command, timeout=LONGEST_ANSWER_S, check=True, **streams)
                except subprocess.SubprocessError as error:
                    raise NotMeasuredError("its model could not be compiled") from error
            super().__init__(python, WORKER, *arguments, log=stderr, timeout=LONGEST_ANSWER_S)

    def measured(self) -> dict[str, dict[str, Any]]:
        """The systems it was timed on, smallest first."""
        done = {name: stage for name, stage in self.stages.items() if name in N_ATOMS and "reason" not in stage}
        return dict(sorted(done.items(), key=lambda item: N_ATOMS[item[0]]))

    def wall_s(self, n_atoms: int) -> float:
        """Predicted time of a call, from the largest system so far; 0 where nothing is known yet."""
        done = list(self.measured().values())
        return statistics.median(done[-1]["wall_s"]) / done[-1]["n_atoms"] * n_atoms if done else 0.0

    def predicted_peak_mib(self, n_atoms: int) -> float:
        """Predicted peak of a call, from the two largest systems so far."""
        done = list(self.measured().values())
        if len(done) < 2:
            return 0.0
        small, large = done[-2:]
        slope = (large["peak_mib"] - small["peak_mib"]) / (large["n_atoms"] - small["n_atoms"])
        return float(large["peak_mib"] + max(0.0, slope) * (n_atoms - large["n_atoms"]))


def n_calls(worker: Measured, system: str, options: argparse.Namespace) -> tuple[int, int]:
    """How many calls, and how many of them come before the clock counts; NotMeasuredError where none are affordable."""
    known = worker.model.only
    if known and not set(ELEMENTS_OF[system]) <= set(known):
        raise NotMeasuredError("does not know these elements")
    n_atoms = N_ATOMS[system]
    if worker.predicted_peak_mib(n_atoms) > options.memory * 1024:
        raise NotMeasuredError(f"would need about {worker.predicted_peak_mib(n_atoms) / 1024:.0f} GiB")
    small = n_atoms < SMALL
    warm = 3 if small else 1
    wanted = warm + options.repeats * (3 if small else 1)
    each, left = worker.wall_s(n_atoms), options.budget - worker.spent_s
    if 2 * each > left:
        raise NotMeasuredError(f"two calls would take about {2 * each:.0f} s, {max(left, 0):.0f} s are left")
    affordable = wanted if each == 0 else max(2, int(left / 2 / each))
    wanted = min(wanted, affordable)
    return wanted, min(warm, wanted - 1)


def measure_system(workers: list[Measured], system: str, options: argparse.Namespace) -> None:
    """Calls every model on one system, in turn."""
    plans: dict[str, tuple[int, int]] = {}
    answers: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    by_name = {worker.name: worker for worker in workers}
    for worker in workers:
        try:
            plans[worker.name] = n_calls(worker, system, options)
        except NotMeasuredError as error:
            worker.stages[system] = {"reason": str(error)}
    for turn in range(max((plan[0] for plan in plans.values()), default=0)):
        for name in rotated(list(plans), turn):
            worker = by_name[name]
            if turn >= plans[name][0] or system in worker.stages:
                continue
            try:
                answers[name].append(worker.ask("call", system=system, seed=1000 * N_ATOMS[system] + turn))
            except NotMeasuredError as error:
                worker.stages[system] = {"reason": str(error)}
    for name, (_, warm) in plans.items():
        if system not in by_name[name].stages:
            record(by_name[name], system, answers[name], warm)


def record(worker: Measured, system: str, answers: list[dict[str, Any]], warm: int) -> None:
    """Keeps what the calls after the first `warm` ones took."""
    if len({answer["energy_ev"] for answer in answers}) == 1 < len(answers):
        worker.stages[system] = {"reason": "every structure got the same energy: nothing was computed"}
        return
    timed = answers[warm:]
    stage: dict[str, Any] = {key: [answer[key] for answer in timed] for key in ("cpu_s", "wall_s")}
    stage["n_atoms"] = timed[0]["n_atoms"]
    stage["first_wall_s"] = answers[0]["wall_s"]
    stage["peak_mib"] = statistics.median(answer["peak_mib"] for answer in timed)
    stage["diagnostics"] = timed[-1]["diagnostics"]
    worker.stages[system] = stage
    worker.spent_s += statistics.median(stage["wall_s"]) * len(answers)


def measure_md(workers: list[Measured], options: argparse.Namespace) -> None:
    """Molecular dynamics, model after model; fewer steps where 100 would take over a quarter of the time left."""
    for worker in workers:
        each = worker.wall_s(N_ATOMS[MD_SYSTEM])
        steps = MD_STEPS if each == 0 else min(MD_STEPS, int((options.budget - worker.spent_s) / 4 / each))
        try:
            if worker.model.only and "Si" not in worker.model.only:
                raise NotMeasuredError("does not know these elements")
            if steps < 10:
                raise NotMeasuredError(f"a step takes about {each:.1f} s")
            worker.stages["md"] = worker.ask("md", system=MD_SYSTEM, steps=steps)
            worker.spent_s += worker.stages["md"]["wall_s"]
        except NotMeasuredError as error:
            worker.stages["md"] = {"reason": str(error)}


def pythons(options: argparse.Namespace) -> dict[str, str]:
    """The interpreter of every environment that is there, by the environment's name; the empty name is our own."""
    found = {"": sys.executable}
    if options.peers:
        for name in {model.environment for model in MODELS.values()} - {""}:
            python = Path(options.peers).expanduser().absolute() / name / "bin" / "python"
            if python.exists():
                found[name] = str(python)
    for pair in options.peer:
        name, separator, python = pair.partition("=")
        if not separator or name not in {model.environment for model in MODELS.values()} - {""}:
            raise SystemExit(f"--peer {pair}: expected NAME=PYTHON with a name among those in benchmarks/README.md")
        found[name] = python
    return found


def start(options: argparse.Namespace, logs: Path) -> tuple[list[Measured], dict[str, str]]:
    """Starts every model that is asked for and installed; the others with the reason why not."""
    workers, missing = [], {}
    interpreters = pythons(options)
    cache = Path(options.cache or logs)
    cache.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        model = MODELS[name]
        if model.environment not in interpreters:
            missing[name] = f"no environment {model.environment!r}"
            continue
        file = cache.absolute() / f"{name}.nequip.pt2" if model.prepare else None
        try:
            worker = Measured(name, interpreters[model.environment], logs / f"{name}.log", file)
        except NotMeasuredError as error:
            missing[name] = str(error)
            continue
        try:
            worker.facts = worker.ask("load")
            workers.append(worker)
        except NotMeasuredError as error:
            missing[name] = str(error)
            worker.stop()
    return workers, missing


def available_gib() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20
    except (OSError, StopIteration):
        return 8.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = os.environ.get("ANDERSONN_PEERS", "")
    parser.add_argument("--peers", default=peers, help="folder of the environments (default: $ANDERSONN_PEERS)")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON", help="one environment's interpreter"
    )
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated (default: all)")
    parser.add_argument("--systems", default=",".join(N_ATOMS), help="comma-separated (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="calls that count, large systems (default 5)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of calls a model may take (default 60)")
    parser.add_argument(
        "--memory", type=float, default=available_gib() / 2, help="GiB a model may take (default: half)"
    )
    parser.add_argument("--cache", default="", help="folder that keeps compiled peers from one run to the next")
    parser.add_argument("--name", default="speed", help="name of the files in benchmarks/results (default speed)")
    options = parser.parse_args()
    for key, allowed in (("models", MODELS), ("systems", N_ATOMS)):
        chosen = [name for name in getattr(options, key).split(",") if name]
        unknown = [name for name in chosen if name not in allowed]
        if unknown:
            parser.error(f"--{key}: unknown {', '.join(unknown)}; known: {', '.join(allowed)}")
        setattr(options, key, chosen)
    options.systems.sort(key=lambda name: N_ATOMS[name])
    return options


def save(
    workers: list[Measured], missing: dict[str, str], facts: dict[str, Any], options: argparse.Namespace
) -> tuple[str, tuple[Path, Path]]:
    """Writes what is known so far; gives the page and the files."""
    data = {
        "machine": facts,
        "settings": {key: getattr(options, key) for key in ("models", "systems", "repeats", "budget", "memory")},
        "models": {worker.name: {"what": worker.model.what, **worker.facts, **worker.stages} for worker in workers},
        "not measured": missing,
    }
    text = report(workers, missing, facts, options.repeats)
    return text, write_results(options.name, data, text)


def main() -> None:
    options = arguments()
    began = time.perf_counter()
    facts = machine()
    with tempfile.TemporaryDirectory() as folder:
        workers, missing = start(options, Path(folder))
        try:
            for system in options.systems:
                print(f"{time.perf_counter() - began:6.0f} s  {system}", flush=True)
                measure_system(workers, system, options)
                if system == MD_SYSTEM:
                    measure_md(workers, options)
                save(workers, missing, facts, options)
        finally:
            for worker in workers:
                worker.stop()
    facts["minutes"] = round((time.perf_counter() - began) / 60, 1)
    text, files = save(workers, missing, facts, options)
    print(text)
    print("\nwritten:", ", ".join(map(str, files)))


if __name__ == "__main__":
    main()
