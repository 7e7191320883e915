"""What `andersonn optimize` gains; blocks of atoms against whole layers; a cold process; two threads against one.

    python -m benchmarks.speed.optimize [--part gain --part blocks --part cold --part threads]

Each part updates its section of the results and leaves the others. CPU time of one thread, ways in turn. `threads`
needs two idle cores and is left out unless it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._common import RESULTS, interleaved, machine, rotated, write_results
from benchmarks._worker import environment, in_own_process
from benchmarks.speed.optimize_report import report
from benchmarks.speed.optimize_worker import silicon

NAME, WORKER = "optimize", "speed.optimize_worker"
MODELS = ("mlearn-pbe", "universal")
CELLS = {"Si8": 1, "Si64": 2, "Si512": 4, "Si1728": 6}
CALLS = {"Si8": 15, "Si64": 9, "Si512": 5, "Si1728": 3}
BLOCK_MODEL, THREADS_MODEL = "mlearn-pbe", "mlearn-pbe"
WAYS = (("eager", 256), ("eager", -1), ("native", 256), ("native", 1024), ("native", -1))
"""Kind of candidate, and atoms in a block: -1 for all atoms, layer by layer."""
BLOCK_CELLS, BLOCK_REPEATS = (5, 11, 23), {5: 5, 11: 2, 23: 1}
MAX_GIB = 8.0
"""Predicted memory from which on all atoms at once are left out."""
COLD_REPEATS = 3
FIRST = (
    "from ase_andersonn import AndersoNN; from ase.build import bulk; AndersoNN({}).get_forces(bulk('Si', cubic=True))"
)
COLD = {
    "import torch": "import torch",
    "import and load, universal": "from ase_andersonn import AndersoNN; AndersoNN('universal', compile=False)",
    "to the first forces of Si8, universal, eager": FIRST.format("'universal', compile=False"),
    "to the first forces of Si8, universal, native": FIRST.format("'universal', compile='native'"),
}
"""Scripts of cold processes; the forces' include the import of ase.build."""


def gain() -> dict[str, Any]:
    """Eager calls against those of the choice, which is made anew in a process of its own."""
    from ase_andersonn import AndersoNN

    found: dict[str, Any] = {}
    for model in MODELS:
        choice = in_own_process(WORKER, model, "choose")
        calculators = {
            "eager": AndersoNN(model, device="cpu", warm_start=False, compile=False),
            "chosen": AndersoNN(model, device="cpu", warm_start=False, optimize=True),
        }
        times = {name: _times(calculators, n_cells, CALLS[name]) for name, n_cells in CELLS.items()}
        found[model] = {"choice": choice, "us_per_atom": times}
    return found


def _times(calculators: dict[str, Any], n_cells: int, repeats: int) -> dict[str, float]:
    """µs of CPU time per atom of each calculator, of structures rattled anew, the same for all."""
    structures = {way: [silicon(n_cells, seed) for seed in range(repeats + 1)] for way in calculators}
    n_atoms = 8 * n_cells**3
    functions = {way: partial(_next, calc, structures[way]) for way, calc in calculators.items()}
    return {way: taken.cpu_median / n_atoms * 1e6 for way, taken in interleaved(functions, repeats).items()}


def _next(calc: Any, structures: list[Any]) -> None:
    calc.get_forces(structures.pop())


def blocks() -> list[dict[str, Any]]:
    """Time and peak memory of each way and number of atoms, each in a process of its own."""
    rows: list[dict[str, Any]] = []
    for n_cells in BLOCK_CELLS:
        for mode, block in WAYS:
            way = {"mode": mode, "block": block, "n_atoms": 8 * n_cells**3}
            before = [row for row in rows if (row["mode"], row["block"]) == (mode, block) and "peak_mib" in row]
            predicted = before[-1]["peak_mib"] / before[-1]["n_atoms"] * way["n_atoms"] / 1024 if before else 0.0
            if block < 0 and predicted > MAX_GIB:
                rows.append({**way, "reason": f"would need about {predicted:.0f} GiB"})
                continue
            rows.append({**way, **in_own_process(WORKER, BLOCK_MODEL, mode, block, n_cells, BLOCK_REPEATS[n_cells])})
    return rows


def cold() -> dict[str, float]:
    """CPU seconds of new processes, in turn; the first round, which may compile bytecode, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in COLD}
    for turn in range(COLD_REPEATS + 1):
        for name in rotated(list(COLD), turn):
            spent = _cpu_seconds(COLD[name])
            if turn:
                seconds[name].append(spent)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _cpu_seconds(script: str) -> float:
    kept = environment() | {"PYTHONDONTWRITEBYTECODE": ""}  # a user's installation has its bytecode
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], env=kept, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def threads(repeats: int = 3) -> dict[str, Any]:
    """Wall time of Si 4096 with one thread and with two, in turn."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(repeats):
        for n_threads in (1, 2) if turn % 2 else (2, 1):
            command = [sys.executable, "-m", f"benchmarks.{WORKER}", THREADS_MODEL, "native", "0", "8", "3"]
            env = environment() | {"OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)}
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
            answer = json.loads(done.stdout.splitlines()[-1])
            assert answer["threads"] == n_threads
            found[n_threads].append(answer["wall_s"])
    return {"wall_s": {str(n): statistics.median(values) for n, values in found.items()}, "load": os.getloadavg()[0]}


PARTS = {"gain": gain, "blocks": blocks, "cold": cold, "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated (default: all but threads)")
    chosen = parser.parse_args().part or [name for name in PARTS if name != "threads"]
    file: Path = RESULTS / f"{NAME}.json"
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in chosen:
        print(name, flush=True)
        data[name] = {"machine": machine(), "found": PARTS[name]()}
        text = report(data)
        files = write_results(NAME, data, text)
    print(text, "\nwritten:", ", ".join(map(str, files)))


if __name__ == "__main__":
    main()
