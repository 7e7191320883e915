"""Porous graphene from a few thousand atoms to any number: time and memory of the tiled energy against size.

    python examples/06_many_atoms.py            # up to 100,000 atoms, about a minute on two cores
    python examples/06_many_atoms.py 35200000   # half an hour or so

`ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
import resource
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms

from ase_andersonn import AndersoNN
from ase_andersonn.tiles import Tiles

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

LARGEST = float(sys.argv[1]) if len(sys.argv) > 1 else 1e4 if QUICK else 1e5
TILES = Tiles(focus=50.0, context=9.0)
SMALLEST = 4e3
LATTICE = 2.466


# %% A sheet with a pore in every square of about three nanometres, rippled so that no two squares are alike
def porous_sheet(n_atoms: float) -> Atoms:
    """A periodic sheet of about `n_atoms` atoms."""
    places = [[0, 0, 0.5], [0.5, 1 / 6, 0.5], [0.5, 0.5, 0.5], [0, 2 / 3, 0.5]]
    square = Atoms("C4", scaled_positions=places, cell=[LATTICE, np.sqrt(3) * LATTICE, 20.0], pbc=True) * (12, 7, 1)
    center = 0.5 * square.cell.array[:2].sum(0)
    square = square[np.linalg.norm((square.positions - center)[:, :2], axis=1) > 6.0]
    n = max(round(np.sqrt(n_atoms / len(square))), 1)
    sheet = square * (n, n, 1)
    phase = 2 * np.pi * sheet.positions[:, :2] / sheet.cell.lengths()[:2]
    sheet.positions[:, 2] += 0.3 * np.sin(3 * phase[:, 0]) * np.cos(2 * phase[:, 1])
    return sheet


# %% The energy of ever larger sheets, after a first one that is not counted
calc = AndersoNN("graphene", tiles=TILES, compile=False if LARGEST < 1e6 else "auto")
calc.get_potential_energy(porous_sheet(1.5 * SMALLEST))
sizes = np.geomspace(SMALLEST, LARGEST, max(round(2 * np.log10(LARGEST / SMALLEST)) + 1, 2))
rows = []
print(f"{'atoms':>10}{'tiles':>8}{'time, s':>10}{'µs/atom':>10}{'peak memory, MiB':>18}{'eV/atom':>12}")
for size in sizes:
    atoms = porous_sheet(size)
    begun = time.perf_counter()
    energy = calc.get_potential_energy(atoms)
    spent = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append((len(atoms), spent, memory))
    per_atom, tiles = 1e6 * spent / len(atoms), calc.diagnostics["tiles"]
    print(f"{len(atoms):10d}{tiles:8d}{spent:10.2f}{per_atom:10.1f}{memory:18.0f}{energy / len(atoms):12.5f}")

# %% Time and memory against size
n, seconds, memory = np.array(rows).T
slope = np.polyfit(np.log(n), np.log(seconds), 1)[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.loglog(n, seconds, "o-")
left.set(xlabel="atoms", ylabel="time, s", title=f"time, slope {slope:.2f}")
right.loglog(n, memory, "o-")
right.set(xlabel="atoms", ylabel="peak memory, MiB", title="memory")
figure.savefig(OUT / "06_many_atoms.png", dpi=150)
print(f"slope of log time against log size {slope:.2f}; picture: {OUT / '06_many_atoms.png'}")
