"""Does a potential hold where nobody looked: random structures, hot crystals, long runs, many sizes, many atoms?

    python -m benchmarks.correctness.robustness [--part random hot nve memory large] [--models NAME ...]

- random: 2,000 structures of 1 to 40 atoms, of one to four elements, at random in a random cell of 3 to 300 Å³ an atom;
  in every second one some distance is kept. None, two or three directions are periodic. Each is evaluated in a batch in
  float32 and in float64. None may fail (a ValueError, as of two atoms on one site, is a refusal). Where the two differ
  by more than `tol`, the structure is evaluated again by itself, as in the batch and its energy alone: what is off by
  more than `tol` has to be told of by the diagnostics of the same call.
- hot: 5 ps of Langevin dynamics of a crystal of each element at 2.5 times its melting temperature.
- nve: 20 ps of five molecules at 300 K and 0.5 fs; the drift of the total energy with its standard error.
- memory: 5,000 calls with structures of 1 to 200 atoms; resident memory along the way, and after the C library has
  given back what is free: fragments of its heap are no leak.
- large: 100,000 atoms untiled and tiled, each in a process of its own.

What the results have already is not measured again, so that an interrupted run goes on. About two hours of one core.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed
from ase.geometry import get_distances
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from ase_andersonn import AndersoNN
from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.potentials.base import MIN_DISTANCE_SHARE
from benchmarks._cells import rattled_bulk, symbols
from benchmarks._common import (
    RESULTS,
    machine,
    markdown_machine,
    markdown_table,
    single_thread_environment,
    write_results,
)
from benchmarks.dynamics.nve_report import line
from benchmarks.dynamics.nve_run import DT

POTENTIALS = ("mlearn-pbe", "mlearn-pbe-large", "graphene", "organic", "universal")
MELTING = {"Li": 453.7, "Si": 1687.0, "Ni": 1728.0, "Cu": 1357.8, "Mo": 2896.0}
"""K."""
MOLECULES = {
    "ethanol": "CH3CH2OH",
    "benzene": "C6H6",
    "acetamide": "CH3CONH2",
    "thiophene": "C4H4S",
    "chloroethane": "CH3CH2Cl",
}
AMOUNTS = {"random": 2000, "hot": 5.0, "nve": 20.0, "memory": 5000, "large": 1e5}
"""Structures, ps, ps, calls, atoms."""
PBC = ([False] * 3, [True, True, False], [True] * 3)
BLOCK, BATCH = 500, 50
"""Random structures that are counted, and evaluated, at a time."""
TOL = 1e-6
"""eV/atom, the calculator's default."""
Row = dict[str, Any]


def random_structure(elements: list[str], rng: np.random.Generator, apart: bool) -> Atoms:
    """Atoms at random in a random cell; `apart`: no two nearer than half of what their number leaves each."""
    n, volume = int(rng.integers(1, 41)), float(np.exp(rng.uniform(np.log(3.0), np.log(300.0))))
    kinds = rng.choice(elements, min(len(elements), int(rng.integers(1, 5))), replace=False)
    cell = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
    cell *= (n * volume / abs(np.linalg.det(cell))) ** (1 / 3)
    pbc, places = PBC[rng.integers(3)], np.empty((0, 3))
    while len(places) < n:
        place = rng.uniform(size=(1, 3)) @ cell
        if not apart or not len(places) or get_distances(place, places, cell, pbc)[1].min() > 0.5 * np.cbrt(volume):
            places = np.vstack([places, place])
    return Atoms(rng.choice(kinds, n), places, cell=cell, pbc=pbc)


def attempt(calc: AndersoNN, structures: list[Atoms]) -> list[float | str]:
    """Of each structure its energy, or "refused", an error's name, or "not finite"; a batch that fails is split."""
    try:
        found = calc.evaluate(structures, stress=True)
    except (CalculationFailed, ValueError) as error:
        if len(structures) > 1:
            return [answer for atoms in structures for answer in attempt(calc, [atoms])]
        return ["refused" if isinstance(error, ValueError) else type(error).__name__]
    finite = [np.isfinite(one["energy"]) and np.isfinite(one["forces"]).all() for one in found]
    return [one["energy"] if good else "not finite" for one, good in zip(found, finite, strict=True)]


def is_silent(calc: AndersoNN, atoms: Atoms, wanted: float) -> bool:
    """Whether the energy, with stress or alone, is off by more than `TOL` and the diagnostics of that call are not."""
    for ask in (lambda: calc.evaluate([atoms], stress=True)[0]["energy"], lambda: calc.get_potential_energy(atoms)):
        off = abs(float(ask()) - wanted) / len(atoms)
        if off > TOL and max(calc.diagnostics[key] for key in ("energy_error", "round_off")) <= TOL:
            return True
    return False


def random(name: str, first: float) -> Row:
    """What became of `BLOCK` structures, the first of which has this number."""
    rng, elements = np.random.default_rng((30, int(first))), symbols(load_model(name))
    calc, alone = AndersoNN(name, compile=False), AndersoNN(name, compile=False, warm_start=False)
    exact = AndersoNN(name, compile=False, dtype="float64", tol=1e-10)
    count = Counter(dict.fromkeys(["structures", "evaluated", "refused", "off", "off, not warned"], 0))
    for _ in range(0, BLOCK, BATCH):
        frames = [random_structure(elements, rng, k % 2 == 0) for k in range(BATCH)]
        for atoms, energy, wanted in zip(frames, attempt(calc, frames), attempt(exact, frames), strict=True):
            problem = next((one for one in (energy, wanted) if isinstance(one, str)), "")
            count["structures"] += 1
            count[problem or "evaluated"] += 1
            if not problem and abs(float(energy) - float(wanted)) / len(atoms) > TOL:
                count["off"] += 1
                count["off, not warned"] += is_silent(alone, atoms, float(wanted))
    return dict(count)


def hot(name: str, symbol: str, picoseconds: float) -> Row:
    model = load_model(name)
    kind = model.species_of_number[bulk(symbol).numbers[0]]
    shortest = float(model.min_distance[kind, kind]) / MIN_DISTANCE_SHARE
    atoms, temperature = (
        bulk(symbol).repeat(4) if symbol != "Si" else bulk(symbol, cubic=True).repeat(2),
        2.5 * MELTING[symbol],
    )
    rng = np.random.default_rng(30)
    atoms.calc = AndersoNN(model)
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(atoms, DT, temperature_K=temperature, friction=0.01 / units.fs, rng=rng, fixcm=False)
    nearest, temperatures, energies = np.inf, [], []
    for step in range(round(1000 * picoseconds)):
        dynamics.run(1)
        distances = atoms.get_all_distances(mic=True)
        nearest = min(nearest, float(distances[np.triu_indices(len(atoms), 1)].min()))
        energies.append(atoms.get_potential_energy() / len(atoms))
        temperatures += [atoms.get_temperature()] if step > 1000 else []
    return {
        "atoms": len(atoms),
        "ps": picoseconds,
        "thermostat, K": temperature,
        "mean temperature, K": float(np.mean(temperatures)),
        "nearest, Å": nearest,
        "shortest of training, Å": shortest,
        "energy from, eV/atom": float(np.min(energies)),
        "energy to, eV/atom": float(np.max(energies)),
    }


def nve(name: str, which: str, picoseconds: float) -> Row:
    atoms, step = molecule(MOLECULES[which]), 0.5 * units.fs
    atoms.calc = AndersoNN(name)
    FIRE(atoms, logfile=None).run(fmax=0.02, steps=1000)
    thermalize_momenta(atoms, 600.0, rng=np.random.default_rng(30))  # half of it goes into the potential energy
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics, energies, temperatures = VelocityVerlet(atoms, step), [], []
    for _ in range(round(picoseconds * 1000 * units.fs / step)):
        dynamics.run(1)
        energies.append(atoms.get_total_energy() / len(atoms))
        temperatures.append(atoms.get_temperature())
    fit = {key: value * (DT / step if key != "scatter" else 1.0) for key, value in line(np.array(energies)).items()}
    return {
        "atoms": len(atoms),
        "ps": picoseconds,
        "mean temperature, K": float(np.mean(temperatures)),
        "drift, µeV/atom/ps": 1e6 * fit["drift"],
        "its error": 1e6 * fit["error"],
        "scatter, µeV/atom": 1e6 * fit["scatter"],
    }


def memory(name: str, calls: float) -> Row:
    calc, rng, row = AndersoNN(name), np.random.default_rng(30), {}
    big = rattled_bulk("Cu", 256)
    for call in range(1, int(calls) + 1):
        atoms = big[: int(rng.integers(1, 201))]
        atoms.rattle(0.05, rng=rng)
        atoms.calc = calc
        atoms.get_forces()
        if call % 1000 == 0:
            row[f"after {call} calls, MiB"] = _resident()
            print(row, file=sys.stderr)
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return row | {"after returning what is free, MiB": _resident()}


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def large(name: str, how: str, number: float) -> Row:
    calc = AndersoNN(name, tiles="on" if how == "tiles" else None, warm_start=False, compile=False)
    side = round(number ** (1 / 3))
    atoms = bulk("Cu").repeat((side, side, round(number / side**2)))
    atoms.rattle(0.05, seed=30)
    row: Row = {"atoms": len(atoms)}
    for key, ask in (("energy, s", calc.get_potential_energy), ("with forces, s", calc.get_forces)):
        begun = time.perf_counter()
        ask(atoms)
        row[key] = time.perf_counter() - begun
        row[f"{key[:-1]}MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    forces = calc.get_forces(atoms)
    return row | {
        "energy, eV/atom": calc.get_potential_energy(atoms) / len(atoms),
        "forces, root mean square, eV/Å": float(np.sqrt(np.square(forces).mean())),
    }


PARTS: dict[str, Callable[..., Row]] = {"random": random, "hot": hot, "nve": nve, "memory": memory, "large": large}


def planned(options: argparse.Namespace) -> Iterator[tuple[str, str, str, float]]:
    """Part, model, what of it, and how much of everything that is asked for."""
    known = {name: symbols(load_model(name)) for name in options.models}
    whats: dict[str, Callable[[str], Iterable[str]]] = {
        "random": lambda _: [""],
        "hot": lambda name: [symbol for symbol in MELTING if known[name] == list(MELTING)],
        "nve": lambda name: MOLECULES if name == "organic" else (),
        "memory": lambda name: [""] if name == "mlearn-pbe" else (),
        "large": lambda name: ["whole", "tiles"] if name == "mlearn-pbe" else (),
    }
    for part in options.part:
        for name in options.models:
            for what in whats[part](name):
                yield part, name, what, AMOUNTS[part]


def in_own_process(*task: str | float) -> Row:
    command = [sys.executable, "-m", "benchmarks.correctness.robustness", "--one", *map(str, task)]
    done = subprocess.run(command, env=single_thread_environment(), stdout=subprocess.PIPE, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def report(data: Row) -> str:
    lines = ["# Robustness", "", markdown_machine(data["machine"])]
    for part in PARTS:
        rows = {key: row for key, row in data["rows"].items() if key.split()[0] == part}
        if rows:
            header = list(dict.fromkeys(name for row in rows.values() for name in row))
            cells = [
                [key.partition(" ")[2], *(shown(row.get(name, 0)) for name in header)] for key, row in rows.items()
            ]
            lines += ["", f"## {part}", "", markdown_table(["", *header], cells)]
    return "\n".join(lines)


def shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", default=POTENTIALS)
    parser.add_argument("--name", default="robustness", help="of the result files")
    parser.add_argument("--one", nargs=4, help="part, model, what and how much: measure it in this process")
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        part, *rest, amount = options.one
        print(json.dumps(PARTS[part](*filter(None, rest), float(amount))))
        return
    path = RESULTS / f"{options.name}.json"
    data = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    for part, name, what, amount in planned(options):
        key = " ".join(filter(None, (part, name, what)))
        while key not in data["rows"] or data["rows"][key].get("structures", amount) < amount:
            before = data["rows"].get(key, {})
            row = in_own_process(part, name, what, before.get("structures", 0) if part == "random" else amount)
            data["rows"][key] = {name: value + before.get(name, 0) for name, value in row.items()}
            data["machine"] = machine()
            print(key, data["rows"][key], flush=True)
            write_results(options.name, data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
