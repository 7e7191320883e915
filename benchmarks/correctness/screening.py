"""Screening of a folder of crystals: time, failures, and whether `kill -9` at random moments changes anything.

    python -m benchmarks.correctness.screening FOLDER [--model universal] [--kills 5] [--work WORK]

`andersonn screen` with bulk moduli and labels, on one thread: once straight through, and once killed by `kill -9` as
often as is asked for, at random parts of the work, and resumed each time. The files of both are compared byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks._common import machine, markdown_machine, markdown_table, single_thread_environment, write_results

FILES = ("table.csv", "table.json", "relaxed.xyz", "report.html")
POLL = 0.05


def command(given: Path, out: Path, model: str) -> list[str]:
    options = ["--model", model, "--properties", "bulk_modulus,label", "--filter", "bulk_modulus > 50"]
    options += ["--sort", "bulk_modulus", "--descending", "--device", "cpu", "--resume", "--out", str(out)]
    return [sys.executable, "-m", "ase_andersonn.cli", "screen", str(given), *options]


def lines(out: Path) -> int:
    """Of the journal: one for the settings, and one a block."""
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def run(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as output:
        environment = os.environ | single_thread_environment()
        return subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment)


def straight(arguments: list[str], log: Path) -> dict[str, float]:
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    status = run(arguments, log).wait()
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "status": status,
        "wall, s": time.perf_counter() - begun,
        "processor, s": spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime,
        "peak memory, GiB": spent.ru_maxrss / 2**20,
    }


def killed(arguments: list[str], out: Path, log: Path, blocks: int, kills: int, seed: int) -> dict[str, Any]:
    """Run and kill at random numbers of finished blocks, and at a random moment of the next one; then to the end."""
    rng = random.Random(seed)
    places = sorted(rng.choices(range(blocks), k=kills))
    seen = []
    for place in places:
        process = run(arguments, log)
        while process.poll() is None and lines(out) < 1 + place:
            time.sleep(POLL)
        until = time.monotonic() + rng.uniform(0.0, 10.0)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(POLL)
        if process.poll() is not None:
            raise RuntimeError(f"the screening ended with status {process.returncode} before it was killed.")
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(max(lines(out) - 1, 0))
    return {"blocks kept at each kill": seen, "status": run(arguments, log).wait()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of structure files")
    parser.add_argument("--model", default="universal", help="name or path")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument("--work", type=Path, help="folder for what the screenings write; a temporary one by itself")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    first, second = work / "straight", work / "killed"
    data: dict[str, Any] = {"model": options.model, "machine": machine()}
    data["straight"] = straight(command(options.folder, first, options.model), work / "straight.log")
    blocks = lines(first) - 1
    again = command(options.folder, second, options.model)
    data["killed"] = killed(again, second, work / "killed.log", blocks, options.kills, options.seed)
    data["same bytes"] = {name: (first / name).read_bytes() == (second / name).read_bytes() for name in FILES}
    rows = json.loads((first / "table.json").read_text(encoding="utf-8"))
    data["structures"], data["blocks"] = len(rows), blocks
    data["rows"] = Counter(row["status"] for row in rows)
    data["report, MB"] = (first / "report.html").stat().st_size / 1e6
    report(data)


def report(data: dict[str, Any]) -> None:
    time_of = data["straight"]
    table = markdown_table(
        ["", ""],
        [
            ["structures", data["structures"]],
            *[[f"of these {name}", count] for name, count in data["rows"].items()],
            ["blocks", data["blocks"]],
            ["processor time, s", f"{time_of['processor, s']:.0f}"],
            ["wall time, s", f"{time_of['wall, s']:.0f}"],
            ["peak memory, GiB", f"{time_of['peak memory, GiB']:.2f}"],
            ["report, MB", f"{data['report, MB']:.1f}"],
            ["blocks kept at each kill", ", ".join(map(str, data["killed"]["blocks kept at each kill"]))],
            *[[f"{name} the same", "yes" if same else "no"] for name, same in data["same bytes"].items()],
        ],
    )
    text = f"`andersonn screen` with {data['model']}, bulk moduli and labels, one thread."
    write_results("screening", data, "\n\n".join(["# Screening", text, markdown_machine(data["machine"]), table]))
    print(table)


if __name__ == "__main__":
    main()
