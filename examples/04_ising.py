"""Monte Carlo of the Ising model with a network as its energy: a temperature scan beside the exact solution.

The network was trained on 2,000 lattices of 8×8 spins; here it is applied to 64×64, and works for any size.
About three minutes on one core. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from scipy.special import ellipk

from ase_andersonn import AndersoNN
from ase_andersonn.lattice.spins import spin_lattice
from ase_andersonn.mc import MetropolisMC, SpinFlip, Sublattice, estimate

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

SIZE = 16 if QUICK else 64
TEMPERATURES = np.linspace(1.5, 3.5, 3 if QUICK else 17)
SWEEPS = 40 if QUICK else 1000

# %% Spins are atoms with initial magnetic moments; the model counts energies in J = 1 eV
atoms = spin_lattice("square", SIZE, spins="up")
atoms.calc = AndersoNN("ising")
print(f"ground state: {atoms.get_potential_energy() / len(atoms):.6f} J a spin, {atoms.calc.diagnostics}")

# %% One flip at a time: only the nine tiles that contain the spin are evaluated, for any size of the lattice
mc = MetropolisMC(atoms, 2.3 / units.kB, SpinFlip(), seed=0, moves_per_step=100)
mc.run(5 if QUICK else 50)
print(f"single flips: {mc.statistics['SpinFlip']}, the last one evaluated {atoms.calc.diagnostics['evaluated']} tiles")

# %% Many flips at a time: sets of spins without two in one tile
# A step is a sweep: the sets are chosen at random, and 80 % of a set's spins are tried at once.
flips = Sublattice(SpinFlip(), fraction=0.8)
attempts = round(len(atoms.calc.independent_sets(atoms)) / flips.fraction)
atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
mc = MetropolisMC(atoms, TEMPERATURES[0] / units.kB, flips, seed=0, moves_per_step=attempts)

# %% The scan, from cold to warm, each temperature starting from the previous one
rows = []
print(f"\n{'T, J':>6}{'energy, J':>12}{'error':>9}{'tau':>7}{'|m|':>9}{'error':>9}{'c, k_B':>8}{'accepted':>10}")
for temperature in TEMPERATURES:
    mc.temperature_K = temperature / units.kB
    mc.run(SWEEPS // 4)
    record = mc.statistics["Sublattice(SpinFlip)"]
    attempted, accepted = record.attempted, record.accepted
    energies, moments = np.empty(SWEEPS), np.empty(SWEEPS)
    for k in range(SWEEPS):
        mc.run(1)
        energies[k] = mc.energy / len(atoms)
        moments[k] = abs(atoms.get_initial_magnetic_moments().mean())
    energy, moment = estimate(energies), estimate(moments)
    heat = len(atoms) * energies.var() / temperature**2
    rows.append((temperature, energy.mean, energy.error, moment.mean, moment.error, heat))
    share = (record.accepted - accepted) / (record.attempted - attempted)
    numbers = f"{energy.mean:12.5f}{energy.error:9.5f}{energy.tau:7.1f}{moment.mean:9.4f}{moment.error:9.4f}{heat:8.3f}"
    print(f"{temperature:6.3f}{numbers}{share:10.1%}")
scan = np.array(rows).T


# %% The infinite lattice, exactly: Onsager's energy, Yang's magnetisation
def onsager_energy(temperature: np.ndarray) -> np.ndarray:
    k = 2 / temperature
    kappa = 2 * np.sinh(k) / np.cosh(k) ** 2
    return -(1 + 2 / np.pi * (2 * np.tanh(k) ** 2 - 1) * ellipk(kappa**2)) / np.tanh(k)


def yang_magnetisation(temperature: np.ndarray) -> np.ndarray:
    return np.clip(1 - np.sinh(2 / temperature) ** -4, 0, None) ** 0.125


away = np.abs(TEMPERATURES - 2 / np.log(1 + np.sqrt(2))) > 0.2  # near T_c there are finite-size effects
off = (scan[1] - onsager_energy(TEMPERATURES))[away] / scan[2][away]
print(f"\nenergies away from T_c are {np.abs(off).max():.1f} standard errors from Onsager's at most")

# %% Picture
t = np.linspace(1.4, 3.6, 500)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
left.plot(t, onsager_energy(t), color="0.5", label="Onsager")
left.errorbar(scan[0], scan[1], scan[2], fmt="o", markersize=4, label=f"Monte Carlo, {SIZE}×{SIZE}")
middle.plot(t, yang_magnetisation(t), color="0.5", label="Yang")
middle.errorbar(scan[0], scan[3], scan[4], fmt="o", markersize=4, label=f"Monte Carlo, {SIZE}×{SIZE}")
right.plot(t, np.gradient(onsager_energy(t), t), color="0.5", label="Onsager")
right.plot(scan[0], scan[5], "o", markersize=4, label=f"Monte Carlo, {SIZE}×{SIZE}")
for axes, label in ((left, "energy per spin, J"), (middle, "|magnetisation| per spin"), (right, "heat capacity, k_B")):
    axes.set(xlabel="temperature, J / k_B", ylabel=label)
    axes.legend()
figure.savefig(OUT / "04_ising.png", dpi=150)
print(f"picture: {OUT / '04_ising.png'}")
