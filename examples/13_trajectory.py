"""Copper at 800 K: a trajectory, and its structure, vibrations and heat capacity, with error bars.

About a minute on two cores. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
from pathlib import Path

import matplotlib.pyplot as plt
from ase.build import bulk

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.md import molecular_dynamics
from ase_andersonn.workflows.trajectory import (
    diffusion,
    heat_capacity,
    mean_values,
    radial_distribution,
    vibrations,
)

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out" / "13_trajectory"
OUT.mkdir(parents=True, exist_ok=True)
TEMPERATURE = 800.0  # K
STEPS = 200 if QUICK else 2500

# %% The trajectory: with a restart file an interrupted run resumes
copper = bulk("Cu", cubic=True, a=3.7) * (2, 2, 2)
run = molecular_dynamics(
    copper,
    AndersoNN("mlearn-pbe", compile=False),
    ensemble="bussi",
    temperature=TEMPERATURE,
    timestep=4.0,
    steps=STEPS,
    every=5,
    seed=0,
    trajectory=OUT / "copper.traj",
    restart=OUT / "copper.npz",
    resume=True,
    progress=True,
)
print(f"{run.steps} steps, drift {1e3 * run.drift:+.3f} meV/atom/ps")

# %% Averages: the first tenth is left out
skip = len(run.times) // 10
means = mean_values(run.trajectory, skip=skip)
heat = heat_capacity(run.trajectory, temperature=TEMPERATURE, skip=skip)
print(f"temperature {means.temperature.mean:.0f} ± {means.temperature.error:.0f} K")
print(
    f"density     {means.density.mean:.3f} g/cm³, pressure {means.pressure.mean:.2f} ± {means.pressure.error:.2f} GPa"
)
print(f"heat capacity at constant volume {heat.per_atom.mean:.2f} ± {heat.per_atom.error:.2f} k/atom (harmonic: 3)")

# %% Functions of distance, time and frequency
pairs = radial_distribution(run.trajectory, r_max=6.0, skip=skip)
moves = diffusion(run.trajectory, lag=500.0, skip=skip)
waves = vibrations(run.trajectory, lag=700.0, skip=skip)
print(f"neighbours within 3.3 Å: {pairs.coordination[pairs.r < 3.3][-1]:.2f}")
print(f"an atom is {(moves.msd[-1] / 2) ** 0.5:.2f} Å from its site, root of the mean square")
print(f"vibrations up to {waves.frequencies[waves.spectrum > 0.05 * waves.spectrum.max()].max():.1f} THz")

# %% Picture
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
curves = (
    (pairs.r, pairs.g, pairs.error, "distance, Å", "g(r)"),
    (moves.times / 1e3, moves.msd, moves.error, "time, ps", "mean-square displacement, Å²"),
    (waves.frequencies, waves.spectrum, waves.spectrum_error, "frequency, THz", "vibrational spectrum, 1/THz"),
)
for ax, (x, y, error, xlabel, ylabel) in zip(axes, curves, strict=True):
    ax.plot(x, y)
    ax.fill_between(x, y - error, y + error, alpha=0.3)
    ax.set(xlabel=xlabel, ylabel=ylabel)
axes[2].set_xlim(0, 12)
figure.suptitle(f"copper, {TEMPERATURE:.0f} K")
figure.savefig(OUT / "13_trajectory.png", dpi=150)
print(f"picture: {OUT / '13_trajectory.png'}")
