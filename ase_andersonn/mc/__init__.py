"""Monte Carlo with any ASE calculator: moves, ensembles, replica exchange, statistics."""

from .criteria import thermal_wavelength
from .local_energy import LocalEnergy, ManyLocalEnergies
from .metropolis import EnergyMismatchError, MetropolisMC
from .moves import (
    CellChange,
    Displacement,
    Exchange,
    Move,
    SpeciesSwap,
    SpinFlip,
    Transmutation,
    Trial,
    VolumeChange,
)
from .statistics import (
    Blocking,
    Estimate,
    MoveRecord,
    autocorrelation,
    estimate,
    integrated_autocorrelation_time,
)
from .sublattice import Sublattice
from .tempering import ParallelTempering

__all__ = [
    "Blocking",
    "CellChange",
    "Displacement",
    "EnergyMismatchError",
    "Estimate",
    "Exchange",
    "LocalEnergy",
    "ManyLocalEnergies",
    "MetropolisMC",
    "Move",
    "MoveRecord",
    "ParallelTempering",
    "SpeciesSwap",
    "SpinFlip",
    "Sublattice",
    "Transmutation",
    "Trial",
    "VolumeChange",
    "autocorrelation",
    "estimate",
    "integrated_autocorrelation_time",
    "thermal_wavelength",
]
