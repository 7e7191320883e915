"""Train a potential on data made here, look at its errors, and relax a vacancy with it.

The labels come from ASE's EMT, a classical potential of metals, so nothing is downloaded. About two minutes on two
cores. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import logging
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.optimize import BFGS

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.config import write_config
from ase_andersonn.training import TrainConfig, evaluate_dataset, train
from ase_andersonn.training.report import error_text, parity_plot

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out" / "03_train"
OUT.mkdir(parents=True, exist_ok=True)
logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)


# %% Labelled frames: small strained and rattled copper crystals, half of them with a vacancy
def labelled(rng: np.random.Generator) -> Atoms:
    """A distorted copper crystal with EMT's energy, forces and stress."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    if rng.random() < 0.5:
        del atoms[int(rng.integers(len(atoms)))]
    atoms.set_cell(atoms.cell @ (np.eye(3) + rng.uniform(-0.03, 0.03, (3, 3))), scale_atoms=True)
    atoms.rattle(rng.uniform(0.02, 0.15), rng=rng)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


rng = np.random.default_rng(0)
write(OUT / "train.extxyz", [labelled(rng) for _ in range(8 if QUICK else 200)])
test_frames = [labelled(rng) for _ in range(2 if QUICK else 20)]

# %% The run. The same file serves the command line: andersonn train examples/out/03_train/run.yaml --fresh
config = TrainConfig(
    train=(str(OUT / "train.extxyz"),),
    output=str(OUT / "run"),
    validation_fraction=0.1,
    model={"cutoff": 4.5, "n_channels": 32, "n_edge": 16, "n_token": 16, "n_hidden": 48, "l_max": 2},
    max_epochs=2 if QUICK else 40,
    batch_atoms=128,
    learning_rate=5e-3,
    energy_weight=10.0,
    energy_weight_final=100.0,
    ema_decay=0.99,
)
write_config(config, OUT / "run.yaml")
train(config, fresh=True)

# %% Errors on test frames
best = OUT / "run" / "best.safetensors"
result = evaluate_dataset(load_model(best), test_frames)
print(f"\n{len(test_frames)} test frames\n{error_text(result.errors)}")
parity_plot(result, OUT / "parity.png")


# %% Use: the relaxed vacancy and its formation energy, beside the potential that made the labels
def vacancy(calculator: AndersoNN | EMT, log: str | None) -> float:
    """Formation energy of a vacancy, eV: E(N − 1 atoms) − (N − 1)/N E(N atoms); in a larger cell than those above."""
    crystal = bulk("Cu", a=3.59, cubic=True) * (2, 2, 2)
    crystal.calc = calculator
    per_atom = crystal.get_potential_energy() / len(crystal)
    defective = crystal[1:]
    defective.calc = calculator
    with BFGS(defective, logfile=log) as optimizer:
        optimizer.run(fmax=0.01, steps=5 if QUICK else 100)
    return defective.get_potential_energy() - len(defective) * per_atom


print("\nrelaxation of the vacancy")
trained, reference = vacancy(AndersoNN(best, compile=False), "-"), vacancy(EMT(), None)
print(f"vacancy formation energy: {trained:.3f} eV, EMT {reference:.3f} eV")

# %% Pictures
figure, axes = plt.subplots(2, 1, figsize=(12, 8), layout="constrained", height_ratios=(1.1, 1))
for axis, picture in zip(axes, (OUT / "run" / "learning_curve.png", OUT / "parity.png"), strict=True):
    axis.imshow(plt.imread(picture))
    axis.axis("off")
figure.savefig(OUT / "03_train.png", dpi=150)
print(f"pictures: {OUT / '03_train.png'} (learning curve and parity)")
