"""Is energy conserved in molecular dynamics, and what does a step cost?

NVE runs of 1,000 atoms at about 600 K with a step of 1 fs: 20 ps with the default tolerance and warm starts (features
and adjoint extrapolated from earlier steps), and beside it the same with cold starts; then shorter runs of smaller
cells at tolerances from loose to tight.

    python -m benchmarks.dynamics.nve [--model NAME_OR_PATH] [--elements Si Cu] [--steps 20000] [--cold-steps 5000]
    python -m benchmarks.dynamics.nve --part curve [--curve-steps 2000]
    python -m benchmarks.dynamics.nve --model MODEL --structure FILE --part long --name nve-NAME    # of any structure

A run can be ended at any time (Ctrl-C): it is saved once a minute in `--work`, the same command goes on where it
stopped, and what was measured until then is reported. After going on, the first step starts cold.

The drift is the slope of a straight line through the total energy. The energy of velocity Verlet oscillates with the
square of the time step around what the method really conserves, so the line is also fitted to this shadow energy,

    H + dt^2 (v V'' v / 12 - F F / 24 m),    V'' v = -(F(t + dt) - F(t - dt)) / 2 dt,

from which the oscillation is gone: Engle, Skeel and Drees, J. Comput. Phys. 206, 432 (2005).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN
from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.files import read_file
from benchmarks._cells import name_of, symbols
from benchmarks._common import IMAGES, RESULTS, drawn, figure, machine, markdown_machine, markdown_table, write_results

DT = 1.0 * units.fs
TEMPERATURE = 600.0
EQUILIBRATION = 300
DEFAULT_TOL = 1e-6
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10)
SAVE_SECONDS = 60.0
BLOCKS = 20
SERIES = ("trace", "shadow_trace")
"""Drawn, and kept in no summary."""
COLUMNS = ("potential", "kinetic", "shadow", "cell", "transposed", "seconds")
"""eV per structure; applications; wall seconds."""


@dataclass(frozen=True)
class Run:
    """One NVE run."""

    part: str
    symbol: str
    n_atoms: int
    warm: bool
    tol: float
    dtype: str
    n_steps: int

    @property
    def name(self) -> str:
        start = "warm" if self.warm else "cold"
        return f"{self.part}-{Path(self.symbol).stem}-{self.n_atoms}-{start}-{self.tol:.0e}-{self.dtype}"


def crystal(symbol: str, n_atoms: int) -> Atoms:
    """Cubic conventional cells, repeated to at least so many atoms; primitive fcc cells for exactly 1,000.

    For the name of a file its first structure.
    """
    if Path(symbol).is_file():
        return read_file(symbol)[0]
    if n_atoms == 1000 and len(bulk(symbol)) == 1:
        return bulk(symbol).repeat(10)
    atoms = bulk(symbol, cubic=True)
    repeat = next(k for k in range(1, 100) if len(atoms) * k**3 >= n_atoms)
    return atoms.repeat(repeat)


def calculator(model: EnergyModel, run: Run, compile_mode: Any) -> AndersoNN:
    return AndersoNN(model, dtype=run.dtype, tol=run.tol, warm_start=run.warm, compile=compile_mode, device="cpu")


def equilibrated(model: EnergyModel, run: Run, work: Path, compile_mode: Any) -> Atoms:
    """The structure all runs of this size begin with, with its velocities; made once."""
    atoms = crystal(run.symbol, run.n_atoms)
    path = work / f"start-{Path(run.symbol).stem}-{len(atoms)}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        atoms.calc = calculator(model, run, compile_mode)
        # twice the temperature: half of it goes into the potential energy
        width = np.sqrt(2 * TEMPERATURE * units.kB * atoms.get_masses()[:, None])
        atoms.set_momenta(width * rng.normal(size=atoms.positions.shape))
        thermostat = {"temperature_K": TEMPERATURE, "friction": 0.02 / units.fs, "fixcm": False, "rng": rng}
        Langevin(atoms, DT, **thermostat).run(EQUILIBRATION)
        Stationary(atoms)
        np.savez(path, positions=atoms.positions, momenta=atoms.get_momenta())
        atoms.calc = None
    saved = np.load(path)
    atoms.positions, _ = saved["positions"], atoms.set_momenta(saved["momenta"])
    return atoms


class Recorded:
    """A run with its record, one row of `COLUMNS` a step, saved so that it can go on later."""

    def __init__(self, run: Run, path: Path, atoms: Atoms) -> None:
        self.run, self.path, self.atoms = run, path, atoms
        self.rows: list[list[float]] = []
        if path.exists():
            saved = np.load(path)
            self.rows = saved["rows"].tolist()
            atoms.positions, _ = saved["positions"], atoms.set_momenta(saved["momenta"])
        self.saved = time.monotonic()

    def save(self) -> None:
        """Replaces the file as a whole."""
        partial = self.path.with_suffix(".partial.npz")
        momenta = self.atoms.get_momenta()
        rows = np.array(self.rows).reshape(-1, len(COLUMNS))
        np.savez(partial, rows=rows, positions=self.atoms.positions, momenta=momenta, run=json.dumps(asdict(self.run)))
        partial.replace(self.path)
        self.saved = time.monotonic()

    def go_on(self, stop: list[bool]) -> None:
        """Up to the run's last step, or until asked to stop."""
        atoms, dynamics = self.atoms, VelocityVerlet(self.atoms, DT)
        inverse_mass = 1.0 / atoms.get_masses()[:, None]
        forces, before = atoms.get_forces(), None
        while len(self.rows) < self.run.n_steps and not stop:
            velocities = atoms.get_velocities()
            begun = time.perf_counter()
            after = dynamics.step(forces=forces)
            seconds = time.perf_counter() - begun
            if before is not None:  # the shadow energy of the point in the middle
                curvature = -(velocities * (after - before)).sum() / (2 * DT)
                self.rows[-1][2] = DT**2 * (curvature / 12 - (forces**2 * inverse_mass).sum() / 24)
            before, forces = forces, after
            applications = atoms.calc.diagnostics["evaluations"]
            energies = atoms.get_potential_energy(), atoms.get_kinetic_energy()
            self.rows.append([*energies, np.nan, applications["cell"], applications["transposed"], seconds])
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()
        self.save()


def line(values: np.ndarray) -> dict[str, float]:
    """Slope of a straight line (per ps) through values taken every step, its standard error, scatter around the line.

    The error is that of the line through the means of blocks, which hardly depend on one another.
    """
    known = np.isfinite(values)
    t, y = np.arange(len(values))[known] * (DT / units.fs) / 1000.0, values[known]
    (slope, offset), scatter = np.polyfit(t, y, 1), 0.0
    scatter = float(np.std(y - slope * t - offset))
    blocks = min(BLOCKS, len(y))
    tb, yb = (np.array([part.mean() for part in np.array_split(x, blocks)]) for x in (t, y))
    error = np.nan
    if blocks > 2:
        _, covariance = np.polyfit(tb, yb, 1, cov=True)
        error = float(np.sqrt(covariance[0, 0]))
    return {"drift": float(slope), "error": error, "scatter": scatter}


def summary(run: Run, rows: np.ndarray, n_atoms: int) -> dict[str, Any]:
    """Everything about a run that goes into the results; energies per atom."""
    potential, kinetic, shadow, cell, transposed, seconds = rows.T
    total = (potential + kinetic) / n_atoms
    return asdict(run) | {
        "symbol": Path(run.symbol).stem,
        "n_atoms": n_atoms,
        "done_steps": len(rows),
        "temperature": float(kinetic.mean() / (1.5 * units.kB * n_atoms)),
        "total": line(total),
        "shadow": line(total + shadow / n_atoms),
        "cell": float(cell.mean()),
        "transposed": float(transposed.mean()),
        "us_per_atom": float(1e6 * np.median(seconds) / n_atoms),
        "trace": thinned(total - total[0]),
        "shadow_trace": thinned(total + shadow / n_atoms - total[0]),
    }


def thinned(values: np.ndarray, most: int = 400) -> list[list[float]]:
    """[time in ps, eV/atom] at no more than so many points."""
    chosen = np.flatnonzero(np.isfinite(values))
    chosen = chosen[:: max(1, len(chosen) // most)]
    return [[float(k * DT / units.fs / 1000.0), float(f"{values[k]:.4e}")] for k in chosen]


@contextmanager
def asked_to_stop() -> Iterator[list[bool]]:
    """A list that is filled when Ctrl-C or a termination signal comes."""
    asked: list[bool] = []
    before = {s: signal.signal(s, lambda *_: asked.append(True)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def planned(options: argparse.Namespace) -> list[Run]:
    runs = []
    if options.part in ("long", "all"):
        for symbol in options.elements:
            common = {"part": "long", "symbol": symbol, "n_atoms": options.atoms, "dtype": options.dtype}
            runs += [Run(**common, warm=True, tol=DEFAULT_TOL, n_steps=options.steps)]
            runs += [Run(**common, warm=False, tol=DEFAULT_TOL, n_steps=options.cold_steps)]
    if options.part in ("curve", "all"):
        for symbol in options.elements:
            common = {"part": "curve", "symbol": symbol, "n_atoms": options.curve_atoms, "n_steps": options.curve_steps}
            for tol in TOLERANCES:
                runs += [Run(**common, dtype=options.dtype, warm=warm, tol=tol) for warm in (True, False)]
    return [run for run in runs if run.n_steps > 0]


def signed(fit: dict[str, float]) -> str:
    return f"{1e6 * fit['drift']:+.2f} ± {1e6 * fit['error']:.2f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    header = ["run", "tol, eV/atom", "start", "ps", "T, K", "drift", "drift, shadow", "scatter", "f", "fᵀ", "µs/atom"]
    lines = [
        [
            f"{row['symbol']} {row['n_atoms']}",
            f"{row['tol']:.0e}",
            "warm" if row["warm"] else "cold",
            f"{row['done_steps'] / 1000:g}" + ("" if row["done_steps"] == row["n_steps"] else " (not finished)"),
            f"{row['temperature']:.0f}",
            signed(row["total"]),
            signed(row["shadow"]),
            f"{1e6 * row['total']['scatter']:.1f}",
            f"{row['cell']:.2f}",
            f"{row['transposed']:.2f}",
            figure(row["us_per_atom"]),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def report(rows: list[dict[str, Any]], facts: dict[str, Any], model: str, name: str) -> str:
    lines = [
        "# Energy conservation in molecular dynamics",
        "",
        f"{model}, velocity Verlet, 1 fs, {', '.join(sorted({row['dtype'] for row in rows}))}.",
        "Drift: slope of a straight line through the total energy, 10⁻⁶ eV/atom/ps, with its standard error, and of",
        "the shadow energy, which velocity Verlet conserves and which oscillates less. Scatter: standard deviation of",
        "the total energy around its line, 10⁻⁶ eV/atom. f, fᵀ: applications of the cell and of its transpose a step",
        "(that of the energy's correction included). Time of a whole step, median; other things ran on the machine.",
        "",
        markdown_machine(facts),
    ]
    titles = {"long": "Default tolerance", "curve": "Drift against tolerance"}
    for part, title in titles.items():
        chosen = [row for row in rows if row["part"] == part]
        if chosen:
            lines += ["", f"## {title}", "", table(chosen)]
    if name == "nve":
        lines += ["", "![energy](../../docs/images/nve.png)"]
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    with drawn(path, (9.6, 3.8), columns=2) as (left, right):
        colors = {symbol: f"C{k}" for k, symbol in enumerate(dict.fromkeys(row["symbol"] for row in rows))}
        for row in (row for row in rows if row["part"] == "long"):
            t, e = np.array(row["shadow_trace"]).T
            style = "-" if row["warm"] else ":"
            label = f"{row['symbol']}, {'warm' if row['warm'] else 'cold'} starts"
            left.plot(t, 1e6 * (e - e[0]), style, color=colors[row["symbol"]], lw=0.9, label=label)
        left.set(xlabel="time, ps", ylabel="change of the shadow energy, 10⁻⁶ eV/atom")
        left.set_visible(left.has_data())
        if left.has_data():
            left.legend(frameon=False, fontsize=8)
        for symbol, color in colors.items():
            for warm, style in ((True, "o-"), (False, "s:")):
                chosen = [r for r in rows if r["part"] == "curve" and (r["symbol"], r["warm"]) == (symbol, warm)]
                chosen.sort(key=lambda r: float(r["tol"]))
                if chosen:
                    drift = [1e6 * abs(r["shadow"]["drift"]) for r in chosen]
                    error = [1e6 * r["shadow"]["error"] for r in chosen]
                    tol = [r["tol"] for r in chosen]
                    label = f"{symbol}, {'warm' if warm else 'cold'} starts"
                    right.errorbar(tol, drift, error, fmt=style, color=color, mfc="none", ms=4, lw=1, label=label)
        right.set_visible(right.has_data())
        if right.has_data():
            right.set(xscale="log", yscale="log", xlabel="tolerance, eV/atom", ylabel="|drift|, 10⁻⁶ eV/atom/ps")
            right.legend(frameon=False, fontsize=8)


def results_of(work: Path) -> list[dict[str, Any]]:
    """Of every run found in the folder, finished or not."""
    found = []
    for path in sorted(work.glob("run-*.npz")):
        if path.name.endswith(".partial.npz"):
            continue
        saved = np.load(path)
        if len(saved["rows"]) > 2 * BLOCKS:
            found.append(summary(Run(**json.loads(str(saved["run"]))), saved["rows"], len(saved["positions"])))
    return sorted(found, key=lambda row: (row["part"] != "long", row["symbol"], -row["tol"], not row["warm"]))


def fingerprint(model: EnergyModel) -> str:
    """Of the weights, so that a run never goes on with another model."""
    content = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    return hashlib.sha256(content).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument(
        "--elements", nargs="+", default=["Si", "Cu"], help="those the model does not know are left out"
    )
    parser.add_argument("--structure", help="file whose first structure takes the place of the elements' crystals")
    parser.add_argument("--part", choices=["long", "curve", "all"], default="all")
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20_000, help="of the long run with warm starts")
    parser.add_argument("--cold-steps", type=int, default=5_000, help="of the long run with cold starts")
    parser.add_argument("--curve-atoms", type=int, default=64)
    parser.add_argument("--curve-steps", type=int, default=2_000)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--compile", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument(
        "--work", type=Path, help="folder of the unfinished runs; one for each model in the temporary one"
    )
    parser.add_argument("--name", default="nve", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model).requires_grad_(False)
    options.elements = [symbol for symbol in options.elements if symbol in symbols(model)]
    if options.structure:
        if options.part != "long" or not Path(options.structure).is_file():
            parser.error("--structure needs a file that exists, and --part long")
        options.elements, options.atoms = [options.structure], len(crystal(options.structure, 0))
    work: Path = options.work or Path(tempfile.gettempdir()) / f"ase-andersonn-nve-{fingerprint(model)}"
    work.mkdir(parents=True, exist_ok=True)
    mode = {"auto": "auto", "yes": True, "no": False}[options.compile]
    with asked_to_stop() as stop:
        for run in planned(options):
            if stop:
                break
            atoms = equilibrated(model, run, work, mode)
            recorded = Recorded(run, work / f"run-{run.name}.npz", atoms)
            atoms.calc = calculator(model, run, mode)
            recorded.go_on(stop)
            rows, facts = results_of(work), machine()
            data = {"machine": facts, "model": name_of(model), "rows": rows}
            write_results(options.name, data, report(rows, facts, name_of(model), options.name), SERIES)
            if rows:
                picture(rows, (IMAGES if options.name == "nve" else RESULTS) / f"{options.name}.png")
            print(run.name, f"{len(recorded.rows)} of {run.n_steps} steps", flush=True)
    print((RESULTS / f"{options.name}.md").read_text())


if __name__ == "__main__":
    main()
