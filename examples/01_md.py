"""Molecular dynamics with the packaged model: silicon with a thermostat, then silicon and copper at constant energy.

About a minute on two cores. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io.trajectory import Trajectory
from ase.md import MDLogger
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

TIMESTEP = 2.0 * units.fs
N_STEPS = 15 if QUICK else 800
LOG_EVERY = 5 if QUICK else 100


# %% One run: ASE's log on the screen, and results and cost of each step in a table
def run(title: str, atoms: Atoms, dynamics: MolecularDynamics) -> dict[str, np.ndarray]:
    """Time [ps], total energy [eV/atom], temperature [K], cell applications and wall time [s] of every step."""
    rows: list[tuple[float, ...]] = []

    def record() -> None:
        evaluations = sum(atoms.calc.diagnostics["evaluations"].values())
        energy, temperature = atoms.get_total_energy() / len(atoms), atoms.get_temperature()
        rows.append((dynamics.get_time() / units.fs / 1000, energy, temperature, evaluations, time.perf_counter()))

    print(f"\n{title}: {len(atoms)} atoms, {N_STEPS} steps of {TIMESTEP / units.fs:g} fs")
    dynamics.attach(MDLogger(dynamics, atoms, "-", peratom=True), interval=LOG_EVERY)
    dynamics.attach(record)
    dynamics.run(N_STEPS)
    return dict(zip(("time", "energy", "temperature", "evaluations", "wall"), np.array(rows).T, strict=True))


# %% Silicon: a Langevin thermostat brings the crystal to 600 K
rng = np.random.default_rng(0)
silicon = bulk("Si", "diamond", a=5.47, cubic=True) * (2, 2, 2)
silicon.calc = AndersoNN()
thermalize_momenta(silicon, 600, rng=rng)
Stationary(silicon)
langevin = Langevin(silicon, TIMESTEP, temperature_K=600, friction=0.02 / units.fs, fixcm=False, rng=rng)
runs = {"Si Langevin": run("Si Langevin", silicon, langevin)}

# %% Silicon: constant energy from there
Stationary(silicon)
nve = VelocityVerlet(silicon, TIMESTEP)
with Trajectory(OUT / "01_md_si.traj", "w", silicon) as trajectory:
    nve.attach(trajectory.write, interval=LOG_EVERY)
    runs["Si NVE"] = run("Si NVE", silicon, nve)

# %% Copper: the same model, another crystal
# On the lattice sites half of the kinetic energy turns into potential energy, so start with twice the temperature.
copper = bulk("Cu", "fcc", a=3.63, cubic=True) * (3, 3, 3)
copper.calc = AndersoNN()
thermalize_momenta(copper, 2 * 600, rng=rng)
Stationary(copper)
runs["Cu NVE"] = run("Cu NVE", copper, VelocityVerlet(copper, TIMESTEP))

# %% Energy conservation, and the cost of a step
# Fluctuations: standard deviations, of the total energy around its drift and, for scale, of the kinetic energy. Cell
# applications: of the layer and its transpose, together; the first step starts cold, all others from those before.
columns = ("drift", "fluctuation", "(kinetic)", "temperature", "applications", "time")
units_of = ("meV/atom/ps", "meV/atom", "meV/atom", "K", "per step", "µs/step/atom")
print()
for heading in (columns, units_of):
    print(f"{'':<12}" + "".join(f"{word:>14}" for word in heading))
for name, table in runs.items():
    n_atoms = len(copper if name.startswith("Cu") else silicon)
    line = np.poly1d(np.polyfit(table["time"], table["energy"], 1))
    fluctuation = np.std(table["energy"] - line(table["time"]))
    conserved = (f"{1e3 * line[1]:+.3f}", f"{1e3 * fluctuation:.3f}") if "NVE" in name else ("thermostat", "")
    kinetic = 1.5 * units.kB * table["temperature"].std()
    equilibrated = table["temperature"][len(table["temperature"]) // 3 :].mean()
    cost = (table["wall"][-1] - table["wall"][0]) / N_STEPS / n_atoms
    applications = table["evaluations"][1:].mean()
    cells = (*conserved, f"{1e3 * kinetic:.3f}", f"{equilibrated:.0f}", f"{applications:.1f}", f"{1e6 * cost:.0f}")
    print(f"{name:<12}" + "".join(f"{cell:>14}" for cell in cells))
print("Temperature: mean of the last two thirds.")

# %% Picture
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, table in runs.items():
    right.plot(table["time"], table["temperature"], label=name)
    if "NVE" in name:
        kinetic = 1.5e3 * units.kB * table["temperature"].std()
        label = f"{name} (kinetic energy: ± {kinetic:.1f})"
        left.plot(table["time"], 1e3 * (table["energy"] - table["energy"].mean()), label=label)
left.set(xlabel="time [ps]", ylabel="total energy − mean [meV/atom]", title="conservation of energy")
right.set(xlabel="time [ps]", ylabel="temperature [K]", title="temperature")
left.legend()
right.legend()
figure.savefig(OUT / "01_md.png", dpi=150)
print(f"picture: {OUT / '01_md.png'}, trajectory: {OUT / '01_md_si.traj'}")
