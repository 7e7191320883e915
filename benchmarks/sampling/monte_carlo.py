"""Do running energies of Monte Carlo agree with fresh ones, and does it sample the distribution of molecular dynamics?

    python -m benchmarks.sampling.monte_carlo [--part agreement gr] [--moves 10000] [--sweeps 600] [--md-steps 20000]

- agreement: displacements, swaps, transmutations, insertions, deletions and changes of the volume, mixed, on a crystal
  of copper and nickel that takes up lithium, in tiles, in float64; the running energy beside that of a calculator that
  knows nothing of the moves, every hundred moves;
- gr: g(r) of graphene at 1000 K from Monte Carlo and from Langevin dynamics: places of the peaks from a parabola
  through the highest bins, heights with standard errors from the autocorrelation of their series.

The cost of a move against size is in `tiles.py`, Monte Carlo beside exact results in `ising.py` and the tests.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, graphene
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.neighborlist import neighbor_list

from ase_andersonn import AndersoNN, MetropolisMC
from ase_andersonn.mc import Displacement, Exchange, SpeciesSwap, Transmutation, VolumeChange, estimate
from ase_andersonn.tiles import Tiles
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results

PARTS = ("agreement", "gr")
CHECK_EVERY = 100
TEMPERATURE = 1000.0
EQUILIBRATION = 0.2
BIN = 0.02
EDGES = np.arange(1.0, 4.6, BIN)
PEAKS = ((1.2, 1.7), (2.2, 2.7), (2.7, 3.1))
"""Å: where to look for the first three peaks."""


# Running energy against a fresh one ----------------------------------------------------------------------------------


def measure_agreement(n_moves: int) -> dict[str, Any]:
    atoms = bulk("Cu", cubic=True) * 5
    rng = np.random.default_rng(0)
    atoms.numbers[rng.choice(len(atoms), len(atoms) // 2, replace=False)] = 28
    atoms.rattle(0.05, seed=0)
    settings: dict[str, Any] = {"dtype": "float64", "compile": False, "tiles": Tiles(focus=6.0, context=5.0)}
    atoms.calc = AndersoNN(**settings)
    lithium = AndersoNN("mlearn-pbe").evaluate([bulk("Li")], forces=False)[0]["energy"]
    moves = [
        Displacement(0.2),
        SpeciesSwap(),
        Transmutation({"Cu": 0.0, "Ni": -1.9}),
        Exchange("Li", lithium + 13.0),
        VolumeChange(),
    ]
    mc = MetropolisMC(atoms, 1500.0, moves, weights=[60, 20, 20, 20, 0.5], seed=0, check_interval=0)
    differences = []
    for done in range(CHECK_EVERY, n_moves + 1, CHECK_EVERY):
        mc.run(CHECK_EVERY)
        fresh = atoms.copy()
        fresh.calc = AndersoNN(**settings)
        differences.append(abs(mc.energy - fresh.get_potential_energy()))
        if done % 1000 == 0:
            print(f"{done} moves, {len(atoms)} atoms, at most {max(differences):.1e} eV apart", flush=True)
    tried = {name: (record.attempted, record.accepted) for name, record in mc.statistics.items()}
    return {"moves": n_moves, "atoms": len(atoms), "largest": max(differences), "tried": tried}


# Pair distributions --------------------------------------------------------------------------------------------------


def histogram(atoms: Atoms) -> np.ndarray:
    """`g(r)` of a sheet: neighbours at a distance over those of a uniform sheet."""
    distances = neighbor_list("d", atoms, EDGES[-1])
    area = abs(np.cross(atoms.cell[0], atoms.cell[1])[2])
    rings = np.pi * np.diff(EDGES**2) * len(atoms) / area
    counts: np.ndarray = np.histogram(distances, EDGES)[0] / (len(atoms) * rings)
    return counts


def sheet() -> Atoms:
    atoms = graphene(a=2.466, size=(6, 6, 1), vacuum=10.0)
    atoms.pbc = True
    atoms.calc = AndersoNN("graphene")
    return atoms


def monte_carlo(sweeps: int) -> np.ndarray:
    """Histograms after each sweep [n, n_bins]."""
    atoms, first = sheet(), round(EQUILIBRATION * sweeps)
    settings: dict[str, Any] = {"moves_per_step": len(atoms), "equilibration": first}
    mc = MetropolisMC(atoms, TEMPERATURE, Displacement(0.1), seed=0, **settings)
    mc.run(first)
    return np.array([histogram(atoms) for _ in mc.irun(sweeps - first)])


def langevin(steps: int) -> np.ndarray:
    """Histograms of every tenth step [n, n_bins]."""
    atoms, rng = sheet(), np.random.default_rng(0)
    thermalize_momenta(atoms, TEMPERATURE, rng=rng)
    dynamics = Langevin(
        atoms, 1.0 * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(round(EQUILIBRATION * steps))
    samples = []
    for _ in range(round((1 - EQUILIBRATION) * steps) // 10):
        dynamics.run(10)
        samples.append(histogram(atoms))
    return np.array(samples)


def peaks(samples: np.ndarray) -> list[dict[str, float]]:
    """Place (Å), height and its standard error of each peak; the height is the mean of the five bins at the top."""
    middle, mean, found = 0.5 * (EDGES[1:] + EDGES[:-1]), samples.mean(0), []
    for low, high in PEAKS:
        inside = np.flatnonzero((middle > low) & (middle < high))
        top = inside[mean[inside].argmax()]
        near = np.arange(top - 3, top + 4)
        a, b, _ = np.polyfit(middle[near] - middle[top], mean[near], 2)
        height = estimate(samples[:, top - 2 : top + 3].mean(1))
        place = float(middle[top] - b / (2 * a))
        found.append({"place": place, "height": height.mean, "error": height.error, "n_effective": height.n_effective})
    return found


def measure_gr(sweeps: int, md_steps: int) -> dict[str, Any]:
    samples = {"Monte Carlo": monte_carlo(sweeps), "Langevin": langevin(md_steps)}
    return {
        "sweeps": sweeps,
        "md_steps": md_steps,
        "peaks": {name: peaks(values) for name, values in samples.items()},
        "r": (0.5 * (EDGES[1:] + EDGES[:-1])).tolist(),
        "g": {name: values.mean(0).tolist() for name, values in samples.items()},
    }


# Report --------------------------------------------------------------------------------------------------------------


def report(data: dict[str, Any]) -> str:
    lines = ["# Monte Carlo", "", markdown_machine(data["machine"]), ""]
    if "agreement" in data:
        found = data["agreement"]
        table = [[name, tried, accepted] for name, (tried, accepted) in found["tried"].items()]
        lines += ["## Running energy against a fresh one", ""]
        lines += [f"{found['moves']:,} moves, copper, nickel and lithium, {found['atoms']} atoms at the end: at most "]
        lines[-1] += f"{found['largest']:.1e} eV apart."
        lines += ["", markdown_table(["move", "tried", "accepted"], table), ""]
    if "gr" in data:
        mc, md = (data["gr"]["peaks"][name] for name in ("Monte Carlo", "Langevin"))
        table = []
        for k, (one, other) in enumerate(zip(mc, md, strict=True)):
            sigma = abs(one["height"] - other["height"]) / np.hypot(one["error"], other["error"])
            heights = [f"{figure(x['height'])} ± {figure(x['error'])}" for x in (one, other)]
            table.append([k + 1, f"{one['place']:.4f}", f"{other['place']:.4f}", *heights, figure(sigma, 2)])
        header = ["peak", "Monte Carlo, Å", "Langevin, Å", "height, Monte Carlo", "height, Langevin", "apart, errors"]
        lines += [f"## g(r) of graphene at {TEMPERATURE:.0f} K", ""]
        lines += [f"{data['gr']['sweeps']} sweeps of 72 atoms, {data['gr']['md_steps']:,} steps of 1 fs; bins {BIN} Å."]
        lines += ["", markdown_table(header, table), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--moves", type=int, default=10_000)
    parser.add_argument("--sweeps", type=int, default=600)
    parser.add_argument("--md-steps", type=int, default=20_000)
    options = parser.parse_args()
    path = RESULTS / "monte_carlo.json"
    measures = {
        "agreement": lambda: measure_agreement(options.moves),
        "gr": lambda: measure_gr(options.sweeps, options.md_steps),
    }
    for part in options.part:
        found = measures[part]()
        data = json.loads(path.read_text()) if path.exists() else {}
        data |= {"machine": machine(), part: found}
        write_results("monte_carlo", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
