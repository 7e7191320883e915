"""Graphene at 1000 K: the pair distribution from Metropolis Monte Carlo beside that from Langevin dynamics.

Both sample the same energies, so their distributions are the same within the noise. About five minutes on two cores.
`ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.build import graphene
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.neighborlist import neighbor_list

from ase_andersonn import AndersoNN, MetropolisMC
from ase_andersonn.mc import Displacement

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

TEMPERATURE = 1000.0
SWEEPS = 3 if QUICK else 200
MD_STEPS = 60 if QUICK else 6000
EQUILIBRATION = 0.25
R_MAX, BIN = 5.0, 0.02
EDGES = np.arange(0.5, R_MAX + BIN / 2, BIN)


# %% Pairs of atoms by their distance
def histogram(atoms: Atoms) -> np.ndarray:
    """`g(r)` of a sheet: neighbours at a distance, over those of a uniform sheet."""
    distances = neighbor_list("d", atoms, R_MAX)
    area = abs(np.cross(atoms.cell[0], atoms.cell[1])[2])
    rings = np.pi * np.diff(EDGES**2) * len(atoms) / area
    counts: np.ndarray = np.histogram(distances, EDGES)[0] / (len(atoms) * rings)
    return counts


def averaged(samples: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error, from five blocks."""
    blocks = np.array([np.mean(block, 0) for block in np.array_split(np.array(samples), min(5, len(samples)))])
    return blocks.mean(0), blocks.std(0) / np.sqrt(max(len(blocks) - 1, 1))


def sheet() -> Atoms:
    """A flat, periodic sheet of 72 atoms."""
    atoms = graphene(a=2.466, size=(6, 6, 1), vacuum=10.0)
    atoms.pbc = True
    return atoms


# %% Monte Carlo: one atom at a time, its step adapted while the sheet is brought to temperature
atoms = sheet()
atoms.calc = AndersoNN("graphene", compile=False)
n_equilibration = round(EQUILIBRATION * SWEEPS)
mc = MetropolisMC(
    atoms, TEMPERATURE, Displacement(0.1), seed=0, moves_per_step=len(atoms), equilibration=n_equilibration
)
mc.run(n_equilibration)
monte_carlo, energies = [], []
for _ in mc.irun(SWEEPS - n_equilibration):
    monte_carlo.append(histogram(atoms))
    energies.append(mc.energy)
accepted = mc.statistics["Displacement"].acceptance
print(f"Monte Carlo: {SWEEPS} sweeps, {accepted:.0%} accepted, step {mc.moves[0].step:.3f} Å")

# %% Molecular dynamics with a Langevin thermostat
rng = np.random.default_rng(0)
atoms = sheet()
atoms.calc = AndersoNN("graphene", compile=False)
thermalize_momenta(atoms, TEMPERATURE, rng=rng)
dynamics = Langevin(atoms, 1.0 * units.fs, temperature_K=TEMPERATURE, friction=0.02 / units.fs, fixcm=False, rng=rng)
dynamics.run(round(EQUILIBRATION * MD_STEPS))
molecular_dynamics, md_energies = [], []
for _step in range(round((1 - EQUILIBRATION) * MD_STEPS) // 10):
    dynamics.run(10)
    molecular_dynamics.append(histogram(atoms))
    md_energies.append(atoms.get_potential_energy())
print(f"Langevin: {MD_STEPS} steps of 1 fs")

# %% Side by side
middle = 0.5 * (EDGES[1:] + EDGES[:-1])
curves = {"Monte Carlo": averaged(monte_carlo), "Langevin": averaged(molecular_dynamics)}
print(f"{'':>12}{'first peak, Å':>16}{'height':>9}{'error':>8}{'energy, eV/atom':>18}")
for (name, (mean, error)), values in zip(curves.items(), (energies, md_energies), strict=True):
    top = mean[middle < 2.0].argmax()
    energy = np.mean(values) / len(atoms)
    print(f"{name:>12}{middle[top]:16.2f}{mean[top]:9.2f}{error[top]:8.2f}{energy:18.4f}")

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (mean, error) in curves.items():
    axes.plot(middle, mean, label=name)
    axes.fill_between(middle, mean - error, mean + error, alpha=0.3)
axes.set(xlabel="distance, Å", ylabel="g(r)", xlim=(1.0, R_MAX), title=f"graphene, {TEMPERATURE:.0f} K")
axes.legend()
figure.savefig(OUT / "05_graphene_mc.png", dpi=150)
print(f"picture: {OUT / '05_graphene_mc.png'}")
