"""Fine-tune a packaged model to another level of theory with a dozen frames.

`mlearn-pbe` describes copper at the level of PBE. Here it is fine-tuned to copper of ASE's EMT, with so few frames
that training from random weights gives large errors. Less than a minute;
`ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import json
import os
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn import load_model
from ase_andersonn.config import to_dict
from ase_andersonn.training import TrainConfig, evaluate_dataset, train

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out" / "10_fine_tuning"
OUT.mkdir(parents=True, exist_ok=True)


# %% Labelled frames: rattled copper crystals
def labelled(rng: np.random.Generator) -> Atoms:
    """A rattled copper crystal with EMT's energy and forces."""
    atoms = bulk("Cu", a=3.6, cubic=True) * (2, 2, 1)
    atoms.rattle(0.1, rng=rng)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


rng = np.random.default_rng(0)
write(OUT / "train.extxyz", [labelled(rng) for _ in range(12)])
write(OUT / "validation.extxyz", [labelled(rng) for _ in range(4)])
test_frames = [labelled(rng) for _ in range(4 if QUICK else 20)]

# %% Two runs of one network: with the weights it has (`initial`, the name or path of a model), and with random ones
tuned = TrainConfig(
    train=(str(OUT / "train.extxyz"),),
    validation=(str(OUT / "validation.extxyz"),),
    output=str(OUT / "tuned"),
    initial="mlearn-pbe",
    learning_rate=1e-3,
    batch_atoms=64,
    stress_weight=0.0,
    max_epochs=3 if QUICK else 30,
)
sizes = {name: size for name, size in to_dict(load_model("mlearn-pbe").config).items() if name != "elements"}
anew = replace(tuned, output=str(OUT / "anew"), initial=None, model=sizes, learning_rate=3e-3)
for config in (tuned, anew):
    train(config, fresh=True)


# %% Errors on test frames
def force_error(model: str | Path) -> float:
    """MAE, meV/Å."""
    return 1e3 * evaluate_dataset(load_model(model), test_frames).errors["all"].forces.mae


print(f"mlearn-pbe as it is        {force_error('mlearn-pbe'):6.1f} meV/Å off EMT's forces")
print(f"after 12 frames of EMT      {force_error(OUT / 'tuned' / 'best.safetensors'):6.1f} meV/Å")
print(f"random weights, likewise   {force_error(OUT / 'anew' / 'best.safetensors'):6.1f} meV/Å")

# %% Picture: the validation errors of both runs
figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for name, text in (("tuned", "from mlearn-pbe"), ("anew", "from random weights")):
    records = [json.loads(line) for line in (OUT / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    errors = [1e3 * record["validation"]["errors"]["all"]["forces"]["mae"] for record in records]
    axis.plot([record["epoch"] for record in records], errors, label=text)
axis.set(xlabel="epoch of 12 frames", ylabel="MAE of the forces, meV/Å", yscale="log")
axis.legend()
figure.savefig(OUT / "10_fine_tuning.png", dpi=150)
print(f"picture: {OUT / '10_fine_tuning.png'}")
