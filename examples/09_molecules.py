"""Molecules at the level of GFN2-xTB: relaxed bonds, the torsion of butane, vibrations, a few picoseconds of dynamics.

About a minute on two cores. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import molecule
from ase.constraints import FixInternals
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from ase_andersonn import AndersoNN

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)
STEPS = 100 if QUICK else 4000  # of dynamics, 0.5 fs each
ANGLES = np.arange(60.0, 181.0, 60.0 if QUICK else 15.0)

# Relaxations and vibrations need tighter fixed points than molecular dynamics does.
tight = AndersoNN("organic", dtype="float64", tol=1e-9, compile=False)

# %% Relax molecules, and look at their bonds
print(f"{'':<12}{'steps':>6}{'bond':>8}{'length [Å]':>12}")
for name, (first, second) in {"CH3CH2OH": (0, 1), "CH3COOH": (0, 1), "CH3CN": (0, 1), "C6H6": (0, 1)}.items():
    atoms = molecule(name)
    atoms.rattle(0.05, seed=0)
    atoms.calc = tight
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(fmax=0.005, steps=300)
        bond = f"{atoms.symbols[first]}–{atoms.symbols[second]}"
        print(f"{name:<12}{optimizer.nsteps:>6}{bond:>8}{atoms.get_distance(first, second):>12.3f}")

# %% The torsion of butane: all but the angle relaxed
atoms = molecule("trans-butane")
atoms.calc = tight
carbons = [atom.index for atom in atoms if atom.symbol == "C"]
ends = [c for c in carbons if (atoms.get_distances(c, carbons) < 1.7).sum() == 2]
inner = [min((c for c in carbons if c not in ends), key=lambda c, e=e: atoms.get_distance(e, c)) for e in ends]
dihedral = [ends[0], inner[0], inner[1], ends[1]]
behind = [i for i in range(len(atoms)) if atoms.get_distance(i, inner[1]) < atoms.get_distance(i, inner[0])]
profile = []
for angle in ANGLES[::-1]:
    atoms.set_constraint()
    atoms.set_dihedral(*dihedral, angle, indices=behind)
    atoms.set_constraint(FixInternals(dihedrals_deg=[[angle, dihedral]]))
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(fmax=0.01, steps=200)
    profile.append(atoms.get_potential_energy())
profile = (np.array(profile[::-1]) - min(profile)) * units.mol / units.kcal
print(
    "\ntorsion of butane [°, kcal/mol]: " + ", ".join(f"{a:.0f} {e:.2f}" for a, e in zip(ANGLES, profile, strict=True))
)

# %% Vibrations of ethanol
atoms = molecule("CH3CH2OH")
atoms.calc = tight
with BFGS(atoms, logfile=None) as optimizer:
    optimizer.run(fmax=1e-3, steps=300)
vibrations = Vibrations(atoms, name=str(OUT / "09_vibrations"))
vibrations.clean()
vibrations.run()
frequencies = vibrations.get_frequencies().real
vibrations.clean()
print(f"\nethanol: vibrations of {frequencies[6]:.0f} to {frequencies[-1]:.0f} 1/cm, O–H the highest")

# %% Dynamics at 300 K
atoms.calc = AndersoNN("organic")
rng = np.random.default_rng(0)
thermalize_momenta(atoms, 300.0, rng=rng)
potential, temperature = [], []
dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300.0, friction=0.01 / units.fs, rng=rng, fixcm=False)
for _ in range(STEPS // 10):
    dynamics.run(10)
    potential.append(atoms.get_potential_energy())
    temperature.append(atoms.get_temperature())
print(f"{STEPS * 5e-4:.2f} ps of ethanol: {np.mean(temperature):.0f} K, C–O {atoms.get_distance(1, 2):.2f} Å")

# %% Picture
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(ANGLES, profile, "o-")
left.set(xlabel="C–C–C–C, degrees", ylabel="energy, kcal/mol", title="butane")
right.plot(np.arange(1, len(potential) + 1) * 5e-3, np.array(potential) - potential[0], lw=0.8)
right.set(xlabel="time, ps", ylabel="potential energy, eV", title="ethanol at 300 K")
figure.savefig(OUT / "09_molecules.png", dpi=150)
print(f"\npicture: {OUT / '09_molecules.png'}")
