"""Deep AndersoNN on crystals: an equilibrium classifier solved by forward (Picard) iteration and by Anderson's method.

The two are compared at equal residuals while γ, the factor before the cell's last matrix, is raised beyond its bound,
so that the spectral radius ρ of the cell's Jacobian goes towards 1: what Anderson saves depends on ρ. The labels follow
a simple rule, so nothing is downloaded; `benchmarks/solvers/deep_andersonn.py` does the same with real labels and
the packaged classifier. The idea is that of arXiv 2407.19724.

About two minutes on one core. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.io import write
from pymatgen.core import Element

from ase_andersonn.classifiers.graph_classifier import GraphClassifier
from ase_andersonn.labels import LabelSet
from ase_andersonn.solvers import Anderson, Picard, Solver
from ase_andersonn.training.classification import ClassifierTrainConfig
from ase_andersonn.training.classification.trainer import ClassifierTrainer

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out" / "08_deep_andersonn"
OUT.mkdir(parents=True, exist_ok=True)

N_TRAIN, N_TEST = (64, 24) if QUICK else (640, 96)
EPOCHS = 2 if QUICK else 12
REPEATS = 1 if QUICK else 3
TOLERANCES = (1e-2, 1e-5) if QUICK else (1e-2, 1e-3, 1e-5)
WINDOWS = (1, 5) if QUICK else tuple(range(1, 9))
MIXINGS = (0.5, 1.0) if QUICK else (0.3, 0.5, 0.7, 0.85, 1.0)
SOLVERS: dict[str, Solver] = {"Picard": Picard(), "Anderson": Anderson(window=5)}
LABELS = LabelSet("bonding", ("covalent", "polar", "ionic"), (0.5, 1.5), "", "difference of electronegativity")
BONDS = {"rocksalt": 2.0, "zincblende": 4 / np.sqrt(3), "cesiumchloride": 2 / np.sqrt(3)}
"""Lattice constant in units of the distance of two neighbours."""
ELEMENTS = [chemical_symbols[z] for z in (*range(3, 10), *range(11, 18), 19, 20, *range(30, 36), *range(48, 54))]


# %% Crystals AB in three structures, labelled by the difference of Pauling's electronegativities
def crystal(rng: np.random.Generator) -> Atoms:
    """A compound of two elements drawn at random, a little distorted."""
    a, b = rng.choice(ELEMENTS, 2, replace=False)
    structure = rng.choice(list(BONDS))
    length = covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]]
    atoms = bulk(a + b, structure, a=BONDS[structure] * length * rng.uniform(1.0, 1.15), cubic=True)
    atoms.rattle(0.05, rng=rng)
    atoms.info["value"] = abs(Element(a).X - Element(b).X)
    return atoms


rng = np.random.default_rng(0)
write(OUT / "train.extxyz", [crystal(rng) for _ in range(N_TRAIN)])
test = [crystal(rng) for _ in range(N_TEST)]
truth = torch.tensor([LABELS.label_of(atoms.info["value"]) for atoms in test])


# %% Training: the same first weights, batches and residuals for both
def accuracy(model: GraphClassifier) -> float:
    """Share of right labels of the test crystals."""
    with torch.no_grad():
        return float((model(model.prepare(test)).argmax(1) == truth).double().mean())


print(f"{'training':<12}{'CPU time, s':>14}{'accuracy':>12}{'applications of cell and transpose':>38}")
models = {}
for name, solver in SOLVERS.items():
    config = ClassifierTrainConfig(
        train=(str(OUT / "train.extxyz"),),
        output=str(OUT / name),
        labels=LABELS,
        model={"n_channels": 16, "n_hidden": 48, "max_steps": 500},
        max_epochs=EPOCHS,
        learning_rate=5e-3,
        device="cpu",
    )
    trainer = ClassifierTrainer(config)
    model = trainer.model
    assert isinstance(model, GraphClassifier)
    model.solver = solver
    begun = time.process_time()
    trainer.fit()
    seconds = time.process_time() - begun
    assert model.statistics is not None
    assert model.adjoint_statistics is not None
    last = f"{model.statistics.evaluations} and {model.adjoint_statistics.evaluations}"
    models[name] = model.eval()
    print(f"{name:<12}{seconds:>14.2f}{accuracy(model):>12.1%}{last:>38}")

# %% Inference with the weights of one of them, at equal residuals, as the cell contracts less and less
model = models["Anderson"]
batch = model.prepare(test)


def measured(solver: Solver, tol: float) -> tuple[int, float]:
    """Applications of the cell to all test crystals at once, and CPU time [ms] of the complete network."""
    model.solver, model.config = solver, replace(model.config, tolerance=tol)
    times = []
    with torch.inference_mode():
        for _ in range(REPEATS):
            begun = time.process_time()
            model.embed(batch)
            times.append(1e3 * (time.process_time() - begun))
    assert model.statistics is not None
    return model.statistics.evaluations, statistics.median(times)


def spectral_radius() -> float:
    """The largest among the test crystals."""
    model.solver, model.config = Anderson(window=8), replace(model.config, tolerance=1e-5)
    return float(model.spectral_radius(batch).max())


print(
    f"\n{'γ':>6}{'ρ':>8}{'residual':>10}" + "".join(f"{name + ', cells, ms':>24}" for name in SOLVERS) + f"{'gain':>8}"
)
rows = []
for gamma in 0.7 * (1.5 if QUICK else 1.25) ** np.arange(20):
    model.cell.contraction = float(gamma)  # above 1 nothing but the measured radius says that there is a fixed point
    radius = spectral_radius()
    if radius > 0.97:
        break
    for tol in TOLERANCES:
        found = {name: measured(solver, tol) for name, solver in SOLVERS.items()}
        gain = found["Picard"][1] / found["Anderson"][1]
        rows.append((gamma, radius, tol, *found["Picard"], *found["Anderson"], gain))
        cells = "".join(f"{n:>16}{ms:>8.1f}" for n, ms in found.values())
        print(f"{gamma:6.2f}{radius:8.3f}{tol:10.0e}{cells}{gain:8.2f}")
table = np.array(rows).T
stiffest = table[0].max()

# %% Window and mixing, at the largest radius: applications and CPU time to the residual
tol = 1e-4
model.cell.contraction = float(stiffest)
print(f"\nγ {stiffest:.2f}, ρ {table[1].max():.3f}, residual {tol:g}: applications of the cell, CPU time [ms]")
print(f"{'mixing':>10}" + "".join(f"{f'window {m}':>14}" for m in WINDOWS))
grid = np.array([[measured(Anderson(m, beta), tol) for m in WINDOWS] for beta in MIXINGS])
for beta, line in zip(MIXINGS, grid, strict=True):
    print(f"{beta:>10}" + "".join(f"{f'{n:.0f}, {ms:.0f}':>14}" for n, ms in line))

# %% Picture
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained", width_ratios=(1, 1, 1.1))
for tol, colour in zip((TOLERANCES[0], TOLERANCES[-1]), ("tab:blue", "tab:orange"), strict=True):
    own = table[:, table[2] == tol]
    left.semilogy(own[1], own[3], "o--", color=colour, label=f"Picard, {tol:.0e}")
    left.semilogy(own[1], own[5], "o-", color=colour, label=f"Anderson, {tol:.0e}")
for tol in TOLERANCES:
    middle.plot(*table[:, table[2] == tol][[1, 7]], "o-", label=f"residual {tol:.0e}")
middle.axhline(1.0, color="black", linewidth=0.8)
left.set(xlabel="largest spectral radius ρ", ylabel="applications of the cell", title="iterations")
middle.set(xlabel="largest spectral radius ρ", ylabel="CPU time, Picard / Anderson", title="gain in inference")
shown = right.imshow(grid[:, :, 1], cmap="YlOrRd", aspect="auto", origin="lower")
for (i, j), n in np.ndenumerate(grid[:, :, 0]):
    right.text(j, i, f"{n:.0f}", ha="center", va="center")
right.set_xticks(range(len(WINDOWS)), WINDOWS)
right.set_yticks(range(len(MIXINGS)), MIXINGS)
right.set(xlabel="window m", ylabel="mixing β", title=f"applications to {1e-4:g} at ρ = {table[1].max():.2f}")
figure.colorbar(shown, label="CPU time, ms")
left.legend()
middle.legend()
figure.savefig(OUT / "08_deep_andersonn.png", dpi=150)
print(f"\npicture: {OUT / '08_deep_andersonn.png'}")
