"""Conformance checks of architectures: the packaged ones and that of another package."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_models import cartesian_model, ethanol, message_model, silicon, small_model
from toy_architecture import ToyModel
from toy_cell import TanhModel

from ase_andersonn import AndersoNN
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.energy_config import EnergyModelConfig
from ase_andersonn.testing.calculators import ConformanceError, check_calculator
from ase_andersonn.testing.models import check_energy_model
from ase_andersonn.tiles import Tiles


def toy_model(kind: type[ToyModel] = ToyModel) -> EnergyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(EnergyModelConfig(elements=(1, 6, 8, 14), cutoff=3.5, n_channels=8))


@pytest.mark.parametrize("make", [toy_model, small_model, message_model, cartesian_model])
def test_architectures_conform(make: Callable[[], EnergyModel]) -> None:
    check_energy_model(make(), ethanol())


def test_another_cell() -> None:
    """One class in a file of its own: its laws and those of the calculator, and the same in tiles."""
    model = toy_model(TanhModel)
    check_energy_model(model, ethanol())
    atoms = silicon() * (4, 1, 1)
    made: dict[str, Any] = {"dtype": "float64", "tol": 1e-14, "solver": "Anderson"}
    calc = AndersoNN(model, **made)
    check_calculator(calc, silicon())
    forces, energy = calc.get_forces(atoms), calc.get_potential_energy(atoms)
    tiled = AndersoNN(model, **made, tiles=Tiles(context=8.0))
    np.testing.assert_allclose(tiled.get_potential_energy(atoms), energy, rtol=1e-4)
    np.testing.assert_allclose(tiled.get_forces(atoms), forces, atol=1e-3)


def test_a_crystal() -> None:
    check_energy_model(toy_model(), silicon())


def test_a_broken_law_is_named() -> None:
    model = toy_model()
    readout = model.readout
    model.readout = lambda z, species: readout(z, species) * len(z)  # type: ignore[method-assign]
    with pytest.raises(ConformanceError, match="extensivity: energy of two copies"):
        check_energy_model(model, silicon())
