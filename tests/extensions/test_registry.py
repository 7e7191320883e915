"""Architectures of other packages: found by an entry point, trained, saved, loaded and evaluated as those here."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from copper_frames import copper

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.checkpoints import registry
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.testing import check_calculator
from ase_andersonn.training import TrainConfig, train


def test_an_architecture_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file and an entry point: it is trained by name, and its model file loads by itself."""
    found = EntryPoints([EntryPoint("ToyModel", "toy_architecture", registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: found.select(**wanted))
    write(tmp_path / "frames.extxyz", copper(8))
    sizes: dict[str, Any] = {"cutoff": 3.5, "n_channels": 8}
    train(
        TrainConfig(
            train=(str(tmp_path / "frames.extxyz"),),
            output=str(tmp_path / "run"),
            architecture="ToyModel",
            model=sizes,
            max_epochs=1,
            batch_atoms=16,
        )
    )
    model = load_model(tmp_path / "run" / "last.safetensors")
    assert type(model).__name__ == "ToyModel"
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    calc = AndersoNN(model, dtype="float64", tol=1e-12)
    assert np.isfinite(calc.get_potential_energy(atoms))
    check_calculator(calc, atoms)


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ValueError, match=r"no EnergyModel named 'DEQAttentoin'; .*DEQAttention"):
        registry.architecture(EnergyModel, "DEQAttentoin")  # type: ignore[type-abstract]


def test_a_model_loads_its_own_architecture_alone() -> None:
    code = (
        "import sys, ase_andersonn; ase_andersonn.load_model(); print([m for m in sys.modules if '_classifier' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
