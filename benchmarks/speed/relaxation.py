"""Relaxation of many crystals: in batches against one by one with ASE's optimizer and filter.

    python -m benchmarks.speed.relaxation [--model mlearn-pbe] [--repeats 2] [--every 1] [--compile]

Distorted copper and nickel cells, positions and cell relaxed to 0.01 eV/Å: 100 of 4 atoms and 30 of 32. Processor time
of `workflows.relax.relax_many` and of `BFGS(FrechetCellFilter(atoms))` of each, in turns after a short run to warm up,
and how far apart the minima are. With `--every 4` every fourth crystal is relaxed by itself, and the time counts four
times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.relax import relax_many
from benchmarks._common import RESULTS, machine, markdown_machine, markdown_table, write_results

FMAX = 0.01
CASES = {"100 cells of 4 atoms": (100, 1), "30 cells of 32 atoms": (30, 2)}
"""Cells, and cubic cells along each side."""


def distorted(symbol: str, repeats: int, seed: int) -> Atoms:
    atoms = bulk(symbol, cubic=True) * (repeats, repeats, repeats)
    rng = np.random.default_rng(seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.02, 0.02, (3, 3))), scale_atoms=True)
    atoms.rattle(0.05, rng=rng)
    return atoms


def one_by_one(structures: Sequence[Atoms], calc: Any) -> list[Atoms]:
    found = []
    for structure in structures:
        atoms = structure.copy()
        atoms.calc = calc
        with BFGS(FrechetCellFilter(atoms), logfile=None) as search:
            search.run(fmax=FMAX, steps=500)
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.calc = None
        found.append(atoms)
    return found


def together(structures: Sequence[Atoms], calc: Any) -> list[Atoms]:
    found = []
    for result in relax_many(structures, calc, fmax=FMAX):
        assert result.atoms is not None, result.error
        result.atoms.info["energy"] = result.energy
        found.append(result.atoms)
    return found


def spent(work: Callable[[Sequence[Atoms], Any], list[Atoms]], given: Sequence[Atoms], calc: Any) -> tuple[float, Any]:
    begun = time.process_time()
    found = work(given, calc)
    return time.process_time() - begun, found


def case(number: int, repeats: int, calc: Any, rounds: int, every: int) -> dict[str, float]:
    structures = [distorted(("Cu", "Ni")[k % 2], repeats, k) for k in range(number)]
    for work in (together, one_by_one):
        work(structures[:3], calc)
    seconds: dict[str, list[float]] = {"together": [], "one_by_one": []}
    for _ in range(rounds):
        for work in (one_by_one, together):
            given, times = (structures[::every], every) if work is one_by_one else (structures, 1)
            took, found = spent(work, given, calc)
            seconds[work.__name__].append(took * times)
            if work is one_by_one:
                expected = found
    found = found[::every]
    atoms = structures[0].positions.shape[0]
    energy = max(abs(a.info["energy"] - b.info["energy"]) / atoms for a, b in zip(found, expected, strict=True))
    length = max(
        max(np.abs(a.cell.lengths() - b.cell.lengths()).max() / repeats, np.abs(nearest(a) - nearest(b)).max())
        for a, b in zip(found, expected, strict=True)
    )
    slow, fast = (float(np.median(seconds[name])) for name in ("one_by_one", "together"))
    return {
        "one by one, s": slow,
        "together, s": fast,
        "ratio": slow / fast,
        "ΔE, eV/atom": energy,
        "Δlength, Å": length,
    }


def nearest(atoms: Atoms) -> np.ndarray:
    """Distance to the nearest neighbour of each atom, Å."""
    distances = (atoms * (2, 2, 2)).get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances.min(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlearn-pbe", help="name or path")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of both, in turns; their median counts")
    parser.add_argument("--every", type=int, default=1, help="of the crystals one is relaxed by itself")
    parser.add_argument("--compile", action="store_true", help="compiled before it is measured, instead of never")
    options = parser.parse_args()
    calc, facts = AndersoNN(options.model, device="cpu", compile=options.compile), machine()
    rows = {name: case(*sizes, calc, options.repeats, options.every) for name, sizes in CASES.items()}
    header = ["", *next(iter(rows.values()))]
    lines = [[name, *(f"{value:.3g}" for value in row.values())] for name, row in rows.items()]
    table = markdown_table(header, lines)
    print(table)
    mode = "compiled" if options.compile else "eager"
    text = f"{options.model}, {mode}; positions and cell to {FMAX} eV/Å; processor time."
    if options.every > 1:
        text += f" One by one: every {options.every}th crystal, the time counted {options.every} times."
    data = {"model": options.model, "machine": facts, "cases": rows}
    write_results("relaxation", data, "\n\n".join(["# Relaxation in batches", text, markdown_machine(facts), table]))
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
