"""Small labelled frames and a small model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn.training import TrainConfig

SMALL_MODEL = {
    "cutoff": 3.5,
    "n_radial": 4,
    "l_max": 2,
    "n_pairs": 2,
    "n_bispectrum": 2,
    "n_channels": 8,
    "n_edge": 8,
    "n_token": 8,
    "n_heads": 2,
    "n_hidden": 8,
    "n_message": 4,
}


def labelled(atoms: Atoms, *, stress: bool = True) -> Atoms:
    """The structure with energy, forces and, where wanted, stress of effective medium theory."""
    atoms.calc = EMT()
    results: dict[str, Any] = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if stress:
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def make_frames(n: int = 10, seed: int = 0) -> list[Atoms]:
    """Rattled copper and nickel (the nickel without stress) and a few molecules of nitrogen."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(n):
        if index % 5 == 4:
            atoms = labelled(molecule("N2"), stress=False)
        else:
            symbol = "Cu" if index % 2 else "Ni"
            atoms = bulk(symbol, cubic=True).repeat((1 + index % 2, 1, 1))
            atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
            labelled(atoms, stress=symbol == "Cu")
        frames.append(atoms)
    return frames


@pytest.fixture
def frames() -> list[Atoms]:
    return make_frames()


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run of three epochs with a few steps each."""
    data = tmp_path / "frames.extxyz"
    write(data, make_frames())
    return TrainConfig(
        train=(str(data),),
        output=str(tmp_path / "run"),
        validation_fraction=0.2,
        model=SMALL_MODEL,
        batch_atoms=12,
        max_epochs=3,
        ema_decay=0.9,
        device="cpu",
        compile=False,
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in the same order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
