"""ASE's integrators of molecular dynamics, by the ensemble they sample, and the numbers they carry from step to step.

| ensemble | integrator | source |
|---|---|---|
| nve | `VelocityVerlet` | Swope et al., J. Chem. Phys. 76, 637 (1982) |
| langevin | `Langevin` | Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006) |
| bussi | `Bussi`, stochastic rescaling | Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101 (2007) |
| npt | `LangevinBAOAB`, a Langevin piston, isotropic | Quigley and Probert, J. Chem. Phys. 120, 11432 (2004) |

What conserves momentum (nve and bussi, without constraints) begins at rest as a whole, and the temperature is that of
the motions left, T = 2 K / (k n), n = 3 N − 3; without periodicity it does not rotate either. The piston has the mass
(3 N + 3) kT τ².
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ._evaluate import check_finite, check_positive

Ensemble = Literal["nve", "langevin", "bussi", "npt"]
ENSEMBLES = ("nve", "langevin", "bussi", "npt")
CARRIED = {"bussi": ("transferred_energy",), "npt": ("p_eps", "force_eps")}
"""What an integrator knows besides the atoms and its random numbers."""


@dataclass(frozen=True)
class Settings:
    """What a run samples, and how; units as of `md.molecular_dynamics`."""

    ensemble: Ensemble
    temperature: float | None
    pressure: float
    timestep: float
    friction: float
    thermostat_time: float
    barostat_time: float

    def check(self) -> None:
        """Raise ValueError for what has no meaning."""
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble is {self.ensemble!r}; it is one of {', '.join(ENSEMBLES)}.")
        check_positive(
            timestep=self.timestep,
            friction=self.friction,
            thermostat_time=self.thermostat_time,
            barostat_time=self.barostat_time,
        )
        check_finite(pressure=self.pressure)
        if self.temperature is not None:
            check_positive(temperature=self.temperature)
        elif self.ensemble != "nve":
            raise ValueError(f"{self.ensemble!r} needs a temperature, K.")
        if self.pressure and self.ensemble != "npt":
            raise ValueError(f"a pressure of {self.pressure} eV/Å³ changes nothing with {self.ensemble!r}; use 'npt'.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def degrees_of_freedom(atoms: Atoms, settings: Settings) -> int:
    """Motions that share the kinetic energy."""
    n = int(atoms.get_number_of_degrees_of_freedom())
    if not _keeps_momentum(atoms, settings):
        return n
    return n - 3 - (0 if atoms.pbc.any() else _rotations(atoms))


def prepare(atoms: Atoms, settings: Settings, rng: np.random.Generator) -> None:
    """Give the atoms velocities where the settings ask for it.

    Raises:
        ValueError: where nothing can move, and for structures that the ensemble does not hold.
    """
    if settings.ensemble == "npt" and not atoms.pbc.all():
        raise ValueError(f"'npt' needs a cell that repeats in three directions; pbc is {atoms.pbc.tolist()}.")
    if settings.ensemble == "npt" and atoms.constraints:
        raise ValueError("'npt' moves every atom with the cell, and constraints hold some; remove them.")
    if degrees_of_freedom(atoms, settings) < 1:
        raise ValueError(f"nothing moves in {atoms.symbols} with {settings.ensemble!r}: constraints or zero momentum.")
    moving = atoms.has("momenta") and bool(np.any(atoms.get_momenta()))
    if settings.temperature is None:
        if not moving:
            raise ValueError("the structure has no velocities; give it some, or a temperature to draw them at.")
        return
    if moving and settings.ensemble != "nve":
        return
    thermalize_momenta(atoms, settings.temperature, rng=rng)
    if _keeps_momentum(atoms, settings):
        Stationary(atoms, preserve_temperature=False)
        if not atoms.pbc.any():
            with np.errstate(invalid="ignore"):  # of a line, around itself
                ZeroRotation(atoms, preserve_temperature=False)


def integrator(atoms: Atoms, settings: Settings, rng: np.random.Generator) -> Any:
    """ASE's object that makes the steps."""
    dt, fs = settings.timestep * units.fs, units.fs
    if settings.temperature is None or settings.ensemble == "nve":
        return VelocityVerlet(atoms, dt)
    temperature = settings.temperature
    if settings.ensemble == "langevin":
        friction = settings.friction / fs
        return Langevin(atoms, dt, temperature_K=temperature, friction=friction, fixcm=False, rng=rng)
    if settings.ensemble == "bussi":
        made = Bussi(atoms, dt, temperature_K=temperature, taut=settings.thermostat_time * fs, rng=rng)
        made.ndof = degrees_of_freedom(atoms, settings)  # ASE's count has the motion of the whole
        made.target_kinetic_energy = 0.5 * made.temp * made.ndof
        return made
    tau, kT = settings.barostat_time * fs, units.kB * temperature
    return LangevinBAOAB(
        atoms, dt, temperature_K=temperature, externalstress=-settings.pressure, hydrostatic=True,
        T_tau=fs / settings.friction, P_tau=tau, P_mass=(3 * len(atoms) + 3) * kT * tau**2, rng=rng,
    )  # fmt: skip


def forget_results(dynamics: Any) -> None:
    """Make the next step depend on nothing but the numbers of a saved state: results are computed anew."""
    calc = dynamics.atoms.calc
    if hasattr(calc, "reset"):
        calc.reset()
    if isinstance(dynamics, LangevinBAOAB):
        dynamics._update_accel()  # kept from the step before


def carried(dynamics: Any, settings: Settings) -> dict[str, float]:
    """The numbers of `CARRIED`."""
    return {name: float(getattr(dynamics, name)) for name in CARRIED.get(settings.ensemble, ())}


def _keeps_momentum(atoms: Atoms, settings: Settings) -> bool:
    return settings.ensemble in ("nve", "bussi") and not atoms.constraints


def _rotations(atoms: Atoms) -> int:
    if len(atoms) < 2:
        return 0
    moments = atoms.get_moments_of_inertia()
    return int((moments > 1e-6 * moments.max()).sum())
