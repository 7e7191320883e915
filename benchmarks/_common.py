"""What the benchmarks share: the machine's description, times taken in turn, and results as JSON and Markdown."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", REPOSITORY / "benchmarks" / "results"))
"""The environment names another folder for shortened runs, whose figures are not to replace those of full ones."""
IMAGES = REPOSITORY / "docs" / "images"
NOT_MEASURED = "not measured"
WIDTH = 240
"""Of a line of a summary."""
PALETTE = 128
"""Colours of a picture."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def single_thread_environment() -> dict[str, str]:
    """The environment of this process with one thread everywhere."""
    return dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, "1")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def script(path: str) -> Any:
    """A script of this repository that makes data, as a module."""
    spec = importlib.util.spec_from_file_location(
        "_".join(Path(path).parts[-2:]).removesuffix(".py"), REPOSITORY / path
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commit() -> str:
    """Short hash of the checkout, with a plus where tracked files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    name = git("rev-parse", "--short", "HEAD")
    if not name:
        return "unknown"
    return name + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", "ase_andersonn") else "")


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code: processor, cores, load, system, Python, library versions, day."""
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for library in ("torch", "ase", "numpy"):
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            facts[library] = None
    return facts


@dataclass
class Times:
    """Repeated measurements of one thing, in seconds."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, cpu: float, wall: float) -> None:
        self.cpu.append(cpu)
        self.wall.append(wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)

    @property
    def wall_median(self) -> float:
        return statistics.median(self.wall)


def interleaved(functions: Mapping[str, Callable[[], object]], repeats: int = 5, warm: int = 1) -> dict[str, Times]:
    """Times every function `repeats` times, in turn (a b c, b c a, ...), so that a busy spell hits all alike."""
    times = {name: Times() for name in functions}
    for turn in range(-warm, repeats):
        for name in rotated(list(functions), turn):
            wall, cpu = time.perf_counter(), time.process_time()
            functions[name]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= 0:
                times[name].add(cpu, wall)
    return times


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The same names, beginning with another at every turn."""
    if not names:
        return []
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def figure(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent; `not measured` for None."""
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    decimals = max(0, digits - len(str(int(abs(value)))) if abs(value) >= 1 else digits)
    return f"{value:,.{decimals}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def markdown_machine(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items() if value is not None)


def compact(value: Any, indent: int = 0) -> str:
    """JSON in which a value that fits a line, and a list of plain values, has a line of its own."""
    line = json.dumps(value, ensure_ascii=False)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    nested = any(isinstance(child, (dict, list)) for child in children)
    if len(line) + indent <= WIDTH or not (isinstance(value, dict) or nested):
        return line
    pad = "\n" + " " * (indent + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(str(key), ensure_ascii=False)}: {compact(v, indent + 1)}" for key, v in value.items()]
        return "{" + pad + f",{pad}".join(parts) + pad[:-1] + "}"
    return "[" + pad + f",{pad}".join(compact(child, indent + 1) for child in value) + pad[:-1] + "]"


def without(value: Any, series: Sequence[str]) -> Any:
    """The same data without the entries of these names, at any depth."""
    if isinstance(value, Mapping):
        return {key: without(child, series) for key, child in value.items() if key not in series}
    return [without(child, series) for child in value] if isinstance(value, list) else value


def write_results(
    name: str, data: Mapping[str, Any], markdown: str, series: Sequence[str] = (), folder: Path = RESULTS
) -> tuple[Path, Path]:
    """Writes `<name>.json` (a summary: all figures of the tables) and `<name>.md`; gives their paths.

    Args:
        name: of the files.
        data: what was measured.
        markdown: the report.
        series: names of entries that only pictures need, which are left out of the summary.
        folder: of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / f"{name}.json", folder / f"{name}.md"
    files[0].write_text(compact(without(data, series)) + "\n", encoding="utf-8")
    files[1].write_text(markdown.rstrip() + "\n", encoding="utf-8")
    return files


@contextmanager
def drawn(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[Any]:
    """Axes of a picture (an array of them where there are several) that is written to a small PNG file at the end."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    drawing, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    yield axes
    pixels = BytesIO()
    drawing.savefig(pixels, dpi=120)
    plt.close(drawing)
    Image.open(pixels).convert("RGB").quantize(PALETTE).save(path, optimize=True)
