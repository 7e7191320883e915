"""Conformance checks of architectures: the packaged ones and that of another package."""

from collections.abc import Callable

import pytest
import torch
from small_models import cartesian_model, ethanol, message_model, silicon, small_model
from toy_architecture import ToyModel

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.energy_config import EnergyModelConfig
from ase_andersonn.testing.calculators import ConformanceError
from ase_andersonn.testing.models import check_energy_model


def toy_model() -> EnergyModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ToyModel(EnergyModelConfig(elements=(1, 6, 8, 14), cutoff=3.5, n_channels=8))


@pytest.mark.parametrize("make", [toy_model, small_model, message_model, cartesian_model])
def test_architectures_conform(make: Callable[[], EnergyModel]) -> None:
    check_energy_model(make(), ethanol())


def test_a_crystal() -> None:
    check_energy_model(toy_model(), silicon())


def test_a_broken_law_is_named() -> None:
    model = toy_model()
    readout = model.readout
    model.readout = lambda z, species: readout(z, species) * len(z)  # type: ignore[method-assign]
    with pytest.raises(ConformanceError, match="extensivity: energy of two copies"):
        check_energy_model(model, silicon())
