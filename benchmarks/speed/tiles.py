"""Tiles: how far from the untiled energy, how fast, in how much memory, and what does a Monte Carlo move cost?

    # error against the context, with the predicted decay
    python -m benchmarks.speed.tiles --part error
    python -m benchmarks.speed.tiles --part sizes [--max-atoms 3.5e7] [--forces]   # time and memory against size
    # a crystal with forces in given memory
    python -m benchmarks.speed.tiles --part memory [--atoms 1e6] [--max-memory 2e9]
    python -m benchmarks.speed.tiles --part moves [--max-atoms 1e6]    # a displacement move against size
    python -m benchmarks.speed.tiles --part workers [--atoms 2e5]      # one process against Dask workers
    python -m benchmarks.speed.tiles --part largest [--atoms 3.53e7] [--forces]    # one evaluation on all cores

Each part is kept in results/tiles.json, and the report and its pictures are made of all parts that are there. Each
size runs in a process of its own, so that its peak memory is its own; where it has workers, CPU time and peak memory
are the sums over all processes. `--work FILE` keeps what is finished of the largest size, so that a run that was
interrupted goes on.

- error: forces and energies of rattled crystals (and porous graphene, where the model knows carbon alone) as a sum over
  tiles against the same structure untiled, in float64. Predicted: γ for each cutoff of context.
- sizes: porous graphene sheets, or crystals, of 10³ atoms and more; energy, and with --forces energy and forces. What
  is smaller than two tiles is evaluated untiled.
- moves: one atom of a sheet is displaced, the energy found, and the move rejected; beside it one evaluation of all
  tiles. Times are CPU times of one thread; the median of many moves.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from ase_andersonn.engine.evaluator import DirectEvaluator
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Evaluator, Settings
from ase_andersonn.tiles import TiledEvaluator
from ase_andersonn.tiles.distributed import connect
from benchmarks._cells import first_choice, model_in, name_of, symbols
from benchmarks._common import RESULTS, machine, write_results
from benchmarks._worker import in_own_process
from benchmarks.speed.tiles_report import pictures, report

CONTEXT_RATIOS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0)
"""Contexts, in cutoffs."""
LATTICE = 2.466
PORE = 6.0
"""Radius of a pore in every square of three nanometres, Å."""


def porous_sheet(n_atoms: float, rattle: float = 0.03, seed: int = 0) -> Atoms:
    """A periodic sheet of graphene with pores, of about so many atoms."""
    places = [[0, 0, 0.5], [0.5, 1 / 6, 0.5], [0.5, 0.5, 0.5], [0, 2 / 3, 0.5]]
    square = Atoms("C4", scaled_positions=places, cell=[LATTICE, np.sqrt(3) * LATTICE, 20.0], pbc=True) * (12, 7, 1)
    center = 0.5 * square.cell.array[:2].sum(0)
    square = square[np.linalg.norm((square.positions - center)[:, :2], axis=1) > PORE]
    n = max(round(np.sqrt(n_atoms / len(square))), 2)
    sheet = square * (n, n, 1)
    sheet.positions += np.random.default_rng(seed).normal(scale=rattle, size=sheet.positions.shape).astype(np.float32)
    return sheet


def crystal(symbol: str, n_atoms: float, rattle: float = 0.1, seed: int = 0) -> Atoms:
    """A cube of an element's crystal with about so many atoms."""
    atoms = bulk(symbol, cubic=True)
    n = max(round((n_atoms / len(atoms)) ** (1 / 3)), 2)
    atoms = atoms * (n, n, n)
    atoms.positions += np.random.default_rng(seed).normal(scale=rattle, size=atoms.positions.shape).astype(np.float32)
    return atoms


def structure(model: EnergyModel, n_atoms: float) -> Atoms:
    """Porous graphene for a model of carbon, else a crystal of the model's first choice."""
    return porous_sheet(n_atoms) if symbols(model) == ["C"] else crystal(first_choice(model), n_atoms)


def settings(model: EnergyModel, compile: bool) -> Settings:
    weight = next(model.parameters())
    return Settings(weight.device, weight.dtype, tol=1e-6, warm_start=False, compile=compile or False)


# Error against the context -------------------------------------------------------------------------------------------


def errors(model: EnergyModel, name: str, atoms: Atoms, focus: float) -> dict[str, Any]:
    """Errors of the energy (eV/atom), of the atoms' energies and of forces (root mean squares) for every context."""
    tight = Settings(torch.device("cpu"), torch.float64, tol=1e-18, warm_start=False, compile=False)
    ask: dict[str, Any] = {"forces": True, "stress": False, "changes": ()}
    exact = DirectEvaluator(model, tight).calculate(atoms, **ask)
    rows = []
    for ratio in CONTEXT_RATIOS:
        context = model.receptive_field + (ratio - 1.0) * model.cutoff
        given = TiledEvaluator(model, tight, focus=focus, context=context).calculate(atoms, **ask)
        per_atom = np.sqrt(np.mean(np.square(given["energies"] - exact["energies"])))
        force = np.sqrt(np.mean(np.square(given["forces"] - exact["forces"])))
        rows.append((abs(given["energy"] - exact["energy"]) / len(atoms), float(per_atom), float(force)))
        print(name, ratio, rows[-1], flush=True)
    energy, per_atom, force = np.array(rows).T.tolist()
    return {
        "name": name,
        "n_atoms": len(atoms),
        "focus": focus,
        "energy": energy,
        "per_atom": per_atom,
        "forces": force,
    }


def measure_errors(options: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for name in options.models:
        model = model_in(name, torch.float64)
        focus = options.focus or 2.0 * model.cutoff
        cases = {"porous graphene": porous_sheet(1200)} if symbols(model) == ["C"] else {}
        cases |= {s: crystal(s, 1500) for s in symbols(model) if s in ("Si", "Cu")}
        contraction = float(getattr(model.config, "contraction", np.nan))
        rows += [
            errors(model, f"{key} ({name or 'default'})", atoms, focus) | {"contraction": contraction}
            for key, atoms in cases.items()
        ]
    return {"ratios": CONTEXT_RATIOS, "rows": rows}


# Time and memory against size ----------------------------------------------------------------------------------------


def evaluator_for(atoms: Atoms, model: EnergyModel, options: argparse.Namespace, **tiles: Any) -> Evaluator:
    """Tiles of the focus asked for, or the structure untiled where it is smaller than two of them."""
    wanted = settings(model, options.compile)
    if options.focus and atoms.cell.lengths().max() < 1.5 * options.focus:
        return DirectEvaluator(model, wanted)
    memory = options.max_memory and int(options.max_memory)
    return TiledEvaluator(model, wanted, focus=options.focus, context=options.context, max_memory=memory, **tiles)


def usage() -> tuple[float, float]:
    """CPU time, s, and peak memory, bytes, of a process so far."""
    return time.process_time(), 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def used(client: Any) -> NDArray[np.float64]:
    """`usage` of this process and of all workers, summed."""
    return np.array([usage(), *(client.run(usage).values() if client else ())]).sum(0)


def one_size(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: one structure, one evaluation after small ones that are not counted."""
    model = model_in(options.models[0], torch.float32)
    client = options.client and connect(options.client)
    ask: dict[str, Any] = {"forces": options.forces, "stress": False, "changes": ()}
    for share in (0.4, 1.0):  # the compiler sees two sizes before anything is timed
        warm = structure(model, share * min(options.atoms, 2e5))
        evaluator_for(warm, model, options, client=client).calculate(warm, **ask)
    atoms = structure(model, options.atoms)
    evaluator = evaluator_for(atoms, model, options, work=options.work, client=client)
    (cpu, before), wall = used(client), time.perf_counter()
    results = evaluator.calculate(atoms, **ask)
    wall = time.perf_counter() - wall
    after, peak = used(client)
    if client:
        client.close()
        if client.cluster is not None:  # one of our own, not a scheduler's
            client.cluster.close()
    found = {"tiles": 1, "pairs": len(atoms)} | evaluator.diagnostics
    return {
        "n_atoms": len(atoms),
        "energy": results["energy"],
        "wall": wall,
        "cpu": after - cpu,
        "peak": peak,
        "before": before,
        "max_memory": options.max_memory,
        "forces": options.forces,
        "client": options.client,
        **{name: found.get(name) for name in ("focus", "context", "tiles", "batches", "rows", "pairs", "backend")},
    }


def measure_size(options: argparse.Namespace, atoms: float, **changed: Any) -> dict[str, Any]:
    """What `one_size` gives for a size."""
    values = vars(options) | {"part": "one", "atoms": atoms} | changed
    if values["models"] == [None]:
        values["models"] = None
    flags = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value not in (None, False):
            flags += [flag, *(map(str, value) if isinstance(value, list) else [str(value)])]
    row = in_own_process("speed.tiles", *flags)
    print({key: row[key] for key in ("n_atoms", "wall", "cpu", "peak", "tiles", "focus", "context")}, flush=True)
    return row


def measure_sizes(options: argparse.Namespace) -> dict[str, Any]:
    count = max(round(2 * np.log10(options.max_atoms / 1e3)) + 1, 2)
    sizes = np.geomspace(1e3, options.max_atoms, count)
    rows = [measure_size(options, float(n), work=options.work if n == sizes[-1] else None) for n in sizes]
    n, wall = np.array([(row["n_atoms"], row["wall"]) for row in rows]).T
    slope = float(np.polyfit(np.log(n), np.log(wall), 1)[0])
    return {"model": name_of(model_in(options.models[0], torch.float32)), "rows": rows, "slope": slope}


def measure_memory(options: argparse.Namespace) -> dict[str, Any]:
    return {"rows": [measure_size(options, options.atoms, forces=True, max_memory=options.max_memory or 2e9)]}


def measure_workers(options: argparse.Namespace) -> dict[str, Any]:
    return {"rows": [measure_size(options, options.atoms, client=client) for client in (None, "local")]}


def measure_largest(options: argparse.Namespace) -> dict[str, Any]:
    return {"rows": [measure_size(options, options.atoms, client=options.client or "local")]}


# Monte Carlo moves ---------------------------------------------------------------------------------------------------


def move_cost(model: EnergyModel, n_atoms: float, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a displacement move and of an evaluation of all tiles."""
    atoms, random = structure(model, n_atoms), np.random.default_rng(1)
    evaluator = TiledEvaluator(
        model,
        settings(model, options.compile),
        focus=options.focus or 4.0,
        context=options.context or model.receptive_field,
    )
    everything = np.arange(len(atoms))
    begun = time.process_time()
    evaluator.trial_energy(atoms, everything)
    evaluator.commit(True)
    full = time.process_time() - begun
    state = evaluator._state
    assert state is not None
    times, positions = [], atoms.arrays["positions"]
    for turn in range(options.moves + 10):
        atom = int(random.integers(len(atoms)))
        saved = positions[atom].copy()
        positions[atom] += random.normal(scale=0.05, size=3)
        begun = time.process_time()
        evaluator.trial_energy(atoms, np.array([atom]))
        evaluator.commit(accepted := turn % 2 == 0)
        if turn >= 10:
            times.append(time.process_time() - begun)
        if not accepted:
            positions[atom] = saved
    found = evaluator.diagnostics
    running = state.energy
    evaluator.reset()
    fresh = evaluator.trial_energy(atoms, everything) if len(atoms) <= 1e5 else None
    return {
        "n_atoms": len(atoms),
        "move": statistics.median(times),
        "full": full,
        "difference": None if fresh is None else running - fresh,
        **{name: found[name] for name in ("tiles", "rows", "pairs", "focus", "context", "backend")},
    }


def measure_moves(options: argparse.Namespace) -> dict[str, Any]:
    model = model_in(options.models[0], torch.float32)
    rows = []
    move_cost(model, 1e3, options)  # compiles
    for n in (1e3, 1e4, 1e5, 1e6):
        if n <= 1.01 * options.max_atoms:
            rows.append(move_cost(model, n, options))
            print(rows[-1], flush=True)
    return {"model": name_of(model), "rows": rows}


MEASURES = {
    "error": measure_errors,
    "sizes": measure_sizes,
    "memory": measure_memory,
    "moves": measure_moves,
    "workers": measure_workers,
    "largest": measure_largest,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*MEASURES, "one", "report"], default="report")
    parser.add_argument("--models", nargs="+", default=[None], help="names or paths; all for `error`, else the first")
    parser.add_argument("--focus", type=float, help="Å")
    parser.add_argument("--context", type=float, help="Å")
    parser.add_argument("--max-memory", type=float, help="bytes")
    parser.add_argument("--max-atoms", type=float, default=1e5)
    parser.add_argument("--atoms", type=float, default=1e6)
    parser.add_argument("--moves", type=int, default=100)
    parser.add_argument("--forces", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--client", help='"local" or the address of a Dask scheduler')
    parser.add_argument("--work", help="file that keeps what is finished of the largest size")
    options = parser.parse_args()
    if options.part != "one":
        path = Path(RESULTS) / "tiles.json"
        data = json.loads(path.read_text()) if path.exists() else {}
        data["machine"] = machine()
        if options.part != "report":
            key = options.part
            if options.forces and key in ("sizes", "largest"):
                key += "_forces"
            data[key] = MEASURES[options.part](options)
        write_results("tiles", data, report(data))
        pictures(data)
    else:
        torch.set_num_threads(1)
        print(json.dumps(one_size(options)))


if __name__ == "__main__":
    main()
