"""Is the packaged Ising model exact enough to sample with, and what does a Monte Carlo move cost?

    python -m benchmarks.sampling.ising [--part errors mc speed] [--sweeps 20000]

- errors: energies of fresh configurations of 8×8 to 1024×1024 spins, the model having seen 8×8 alone;
- mc: 64×64 spins at six temperatures, energy and magnetisation beside the exact ones. Kaufman's energy of the finite
  lattice is exact at 64×64; Onsager's is that of the infinite one, which differs near T_c. Standard errors from the
  integrated autocorrelation time;
- speed: CPU time of a move through `MetropolisMC` for 8×8 to 2048×2048 spins, of single flips and of sublattices.

Each temperature is written when it is done; the same command goes on with those that are missing, `--again` anew.
A quarter of an hour in all, on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import units

from ase_andersonn import AndersoNN
from ase_andersonn.lattice.spins import spin_lattice
from ase_andersonn.mc import MetropolisMC, SpinFlip, Sublattice, estimate
from benchmarks._common import (
    IMAGES,
    RESULTS,
    drawn,
    interleaved,
    machine,
    markdown_machine,
    markdown_table,
    script,
    write_results,
)
from benchmarks.sampling.ising_exact import CRITICAL, finite_energy, onsager_energy, yang_magnetisation

TEMPERATURES = (1.5, 1.9, 2.3, 2.7, 3.1, 3.5)
SIZE = 64
ERROR_SIZES = {8: 2000, 16: 500, 32: 200, 64: 100, 128: 100, 256: 40, 512: 20, 1024: 10}
"""Sites along an edge and number of configurations."""
SPEED_SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
FRACTION = 0.8
MOVES = 300
PICTURE = IMAGES / "ising.png"
PARTS = ("errors", "mc", "speed")


def lattice(size: int, spins: Any = "up") -> Any:
    atoms = spin_lattice("square", size, spins=spins, seed=0)
    atoms.calc = AndersoNN("ising", device="cpu")
    return atoms


def measure_errors() -> list[dict[str, Any]]:
    make, rng, rows = script("data/recipes/ising/make.py"), np.random.default_rng(12345), []
    for size, n in ERROR_SIZES.items():
        atoms, off = lattice(size), []
        for spins in make.draw(n, size, 50, rng):
            atoms.set_initial_magnetic_moments(spins.reshape(-1).astype(float))
            off.append(abs(atoms.get_potential_energy() - make.ising_energy(spins[None])[0]))
        rows.append({"size": size, "n": n, "median": statistics.median(off), "largest": max(off)})
        print(f"errors {size}: median {rows[-1]['median']:.1e} J", flush=True)
    return rows


def measure_temperature(temperature: float, sweeps: int) -> dict[str, Any]:
    """Energy and |magnetisation| per spin after each sweep, from the ground state on."""
    atoms = lattice(SIZE)
    move = Sublattice(SpinFlip(), fraction=FRACTION)
    attempts = round(len(atoms.calc.independent_sets(atoms)) / FRACTION)
    mc = MetropolisMC(atoms, temperature / units.kB, move, seed=1, moves_per_step=attempts)
    equilibration = sweeps // 10
    mc.run(equilibration)
    energies, moments = np.empty(sweeps), np.empty(sweeps)
    begun = time.perf_counter()
    for k in range(sweeps):
        mc.run(1)
        energies[k] = mc.energy / len(atoms)
        moments[k] = abs(atoms.arrays["initial_magmoms"].mean())
    energy, moment = estimate(energies), estimate(moments)
    exact = finite_energy(temperature, SIZE)
    print(f"T = {temperature}: {energy}, exact {exact:.6f}", flush=True)
    return {
        "temperature": temperature,
        "sweeps": sweeps,
        "equilibration": equilibration,
        "energy": [energy.mean, energy.error, energy.tau],
        "magnetisation": [moment.mean, moment.error, moment.tau],
        "kaufman": exact,
        "onsager": onsager_energy(temperature),
        "yang": yang_magnetisation(temperature),
        "acceptance": next(iter(mc.statistics.values())).acceptance,
        "seconds": time.perf_counter() - begun,
    }


def measure_speed(repeats: int) -> list[dict[str, Any]]:
    """CPU time of a move; sizes in turn, so that a busy spell hits all alike."""
    singles, many, proposed = {}, {}, {}
    for size in SPEED_SIZES:
        atoms = lattice(size, "random")
        kwargs: dict[str, Any] = {"temperature_K": 2.3 / units.kB, "seed": 1, "check_interval": 0}
        single = MetropolisMC(atoms, moves=SpinFlip(), **kwargs)
        other = lattice(size, "random")
        each = MetropolisMC(other, moves=Sublattice(SpinFlip(), fraction=FRACTION), **kwargs)
        n_sets = len(other.calc.independent_sets(other))
        steps = min(512, max(1, 200_000 // size**2) * n_sets)
        singles[str(size)] = lambda single=single: single.run(MOVES)
        many[str(size)] = lambda each=each, steps=steps: each.run(steps)
        proposed[str(size)] = each
        each.run(n_sets)
    one = interleaved(singles, repeats)
    rows = []
    before = {name: next(iter(mc.statistics.values())).attempted for name, mc in proposed.items()}
    several = interleaved(many, repeats, warm=0)
    for size in SPEED_SIZES:
        name = str(size)
        attempted = next(iter(proposed[name].statistics.values())).attempted - before[name]
        rate = attempted / sum(several[name].cpu)
        rows.append({"size": size, "single": one[name].cpu_median / MOVES, "rate": rate})
        print(f"{size}: {1e6 * rows[-1]['single']:.1f} µs a move, {rate / 1e6:.2f} million proposals/s", flush=True)
    return rows


def report(data: dict[str, Any]) -> str:
    lines = [
        "# The Ising model",
        "",
        f"`{data['model']}`, {data['parameters']} parameters, float32, trained on 8×8 alone; energies in J.",
        "",
    ]
    lines += [markdown_machine(data["machine"]), ""]
    if "errors" in data:
        table = [
            [f"{r['size']}×{r['size']}", r["n"], f"{r['median']:.1e}", f"{r['largest']:.1e}"] for r in data["errors"]
        ]
        header = ["lattice", "configurations", "median absolute error, J", "largest, J"]
        lines += ["## Errors of the energy", "", markdown_table(header, table), ""]
    if data.get("mc"):
        lines += [
            f"## Monte Carlo, {SIZE}×{SIZE}",
            "",
            "Energy and magnetisation per spin, standard errors (SE) from the autocorrelation time τ (in sweeps), how",
            "many of them they are off the exact values: the energy Kaufman's for this lattice, the magnetisation,",
            "below T_c, Yang's for the infinite one. Onsager's energy is that of the infinite lattice.",
            "",
        ]
        table = []
        for row in data["mc"]:
            (e, se, tau), (m, sm, tau_m) = row["energy"], row["magnetisation"]
            below = row["temperature"] < CRITICAL
            table.append(
                [
                    row["temperature"],
                    f"{row['sweeps']:,}",
                    f"{e:.5f} ± {se:.5f}",
                    f"{row['kaufman']:.5f}",
                    f"{(e - row['kaufman']) / se:+.1f}",
                    f"{row['onsager']:.5f}",
                    f"{tau:.1f}",
                    f"{m:.5f} ± {sm:.5f}",
                    f"{row['yang']:.5f}" if below else "",
                    f"{(m - row['yang']) / sm:+.1f}" if below else "",
                    f"{tau_m:.1f}",
                ]
            )
        header = [
            "T, J",
            "sweeps",
            "energy, J",
            "Kaufman",
            "SE off",
            "Onsager",
            "τ",
            "magnetisation",
            "Yang",
            "SE off",
            "τ",
        ]
        lines += [markdown_table(header, table), ""]
    if "speed" in data:
        first = data["speed"][0]["single"]
        table = [
            [
                f"{r['size']}×{r['size']}",
                f"{1e6 * r['single']:.1f}",
                f"{r['single'] / first:.2f}",
                f"{1 / r['single']:,.0f}",
                f"{r['rate']:,.0f}",
            ]
            for r in data["speed"]
        ]
        header = ["lattice", "single flip, µs", "relative to 8×8", "single flips/s", "sublattice, proposals/s"]
        lines += [
            "## Cost of a move",
            "",
            "CPU time on one core through `MetropolisMC` at 2.3 J, sizes measured in turn.",
            "",
            markdown_table(header, table),
            "",
        ]
    return "\n".join([*lines, "![energy, magnetisation, cost of a move](../../docs/images/ising.png)"])


def picture(data: dict[str, Any]) -> None:
    with drawn(PICTURE, (12.0, 3.6), columns=3) as (left, middle, right):
        grid = np.linspace(1.0, 4.0, 400)
        left.plot(grid, [onsager_energy(t) for t in grid], color="0.4", label="Onsager")
        middle.plot(grid, [yang_magnetisation(t) for t in grid], color="0.4", label="Yang, infinite lattice")
        for axes, key in ((left, "energy"), (middle, "magnetisation")):
            points = [(row["temperature"], *row[key][:2]) for row in data.get("mc", [])]
            if points:
                t, mean, error = zip(*points, strict=True)
                axes.errorbar(t, mean, error, fmt="o", markersize=4, label=f"Monte Carlo, {SIZE}×{SIZE}")
            axes.axvline(CRITICAL, color="0.8", linewidth=0.8)
            axes.set(xlabel="temperature, J / k_B")
            axes.legend(frameon=False)
        left.set(ylabel="energy per spin, J")
        middle.set(ylabel="magnetisation per spin")
        speed = data.get("speed", [])
        sizes = [row["size"] ** 2 for row in speed]
        right.loglog(sizes, [row["single"] for row in speed], "o-", markersize=4, label="single flips")
        right.loglog(sizes, [1 / row["rate"] for row in speed], "s-", markersize=4, label="sublattices")
        right.set(xlabel="spins", ylabel="CPU time per proposal, s")
        right.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sweeps", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--name", default="ising", help="of the result files")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / f"{options.name}.json"
    data: dict[str, Any] = json.loads(file.read_text()) if file.exists() and not options.again else {}
    model = AndersoNN("ising").model
    data |= {"machine": machine(), "model": "ising", "parameters": sum(p.numel() for p in model.parameters())}

    def write() -> Path:
        return write_results(options.name, data, report(data))[1]

    if "errors" in options.part:
        data["errors"] = measure_errors()
        write()
    if "speed" in options.part:
        data["speed"] = measure_speed(options.repeats)
        write()
    if "mc" in options.part:
        done = {row["temperature"]: row for row in data.get("mc", []) if row["sweeps"] >= options.sweeps}
        for temperature in TEMPERATURES:
            if temperature not in done:
                done[temperature] = measure_temperature(temperature, options.sweeps)
            data["mc"] = [done[t] for t in sorted(done)]
            write()
    picture(data)
    print(report(data))


if __name__ == "__main__":
    main()
