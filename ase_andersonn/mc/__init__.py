"""Monte Carlo with any ASE calculator.

>>> mc = MetropolisMC(atoms, 600.0, [SpeciesSwap(), Displacement(0.1)], weights=[1, 4], seed=1, equilibration=1000)
>>> mc.run(10_000)
>>> print(mc.energy_estimate, mc.statistics)

| moves | what is given | ensemble |
|---|---|---|
| `Displacement`, `SpeciesSwap`, `SpinFlip` | | canonical |
| `VolumeChange`, `CellChange` | pressure | isothermal-isobaric |
| `Transmutation` | chemical potentials of species | semi-grand canonical |
| `Exchange` | chemical potential | grand canonical |

Moves can be combined. `Sublattice` makes flips and transmutations on many atoms at once, `ParallelTempering` exchanges
structures between simulations at several temperatures, `estimate` gives averages with errors.
"""

from .criteria import thermal_wavelength
from .local_energy import LocalEnergy, ManyLocalEnergies
from .metropolis import MetropolisMC
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
from .simulation import EnergyMismatchError
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
