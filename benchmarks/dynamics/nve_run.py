"""An NVE run: its start, and its record of energies, saved so that it can be resumed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.files import read_file

DT = 1.0 * units.fs
TEMPERATURE = 600.0
EQUILIBRATION = 300
SAVE_SECONDS = 60.0
COLUMNS = ("potential", "kinetic", "shadow", "cell", "transposed", "seconds")
"""eV per structure; applications; wall seconds."""


@dataclass(frozen=True)
class Run:
    """One NVE run."""

    part: str
    symbol: str
    n_atoms: int
    warm: bool
    tol: float
    dtype: str
    n_steps: int

    @property
    def name(self) -> str:
        start = "warm" if self.warm else "cold"
        return f"{self.part}-{Path(self.symbol).stem}-{self.n_atoms}-{start}-{self.tol:.0e}-{self.dtype}"


def crystal(symbol: str, n_atoms: int) -> Atoms:
    """Cubic conventional cells, repeated to at least so many atoms; primitive fcc cells for exactly 1,000.

    For the name of a file its first structure.
    """
    if Path(symbol).is_file():
        return read_file(symbol)[0]
    if n_atoms == 1000 and len(bulk(symbol)) == 1:
        return bulk(symbol).repeat(10)
    atoms = bulk(symbol, cubic=True)
    repeat = next(k for k in range(1, 100) if len(atoms) * k**3 >= n_atoms)
    return atoms.repeat(repeat)


def calculator(model: EnergyModel, run: Run, compile_mode: Any) -> AndersoNN:
    return AndersoNN(model, dtype=run.dtype, tol=run.tol, warm_start=run.warm, compile=compile_mode, device="cpu")


def equilibrated(model: EnergyModel, run: Run, work: Path, compile_mode: Any) -> Atoms:
    """The structure all runs of this size begin with, with its velocities; made once."""
    atoms = crystal(run.symbol, run.n_atoms)
    path = work / f"start-{Path(run.symbol).stem}-{len(atoms)}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        atoms.calc = calculator(model, run, compile_mode)
        # twice the temperature: half of it goes into the potential energy
        width = np.sqrt(2 * TEMPERATURE * units.kB * atoms.get_masses()[:, None])
        atoms.set_momenta(width * rng.normal(size=atoms.positions.shape))
        thermostat = {"temperature_K": TEMPERATURE, "friction": 0.02 / units.fs, "fixcm": False, "rng": rng}
        Langevin(atoms, DT, **thermostat).run(EQUILIBRATION)
        Stationary(atoms)
        np.savez(path, positions=atoms.positions, momenta=atoms.get_momenta())
        atoms.calc = None
    saved = np.load(path)
    atoms.positions, _ = saved["positions"], atoms.set_momenta(saved["momenta"])
    return atoms


class Recorded:
    """A run with its record, one row of `COLUMNS` a step, saved so that it can go on later."""

    def __init__(self, run: Run, path: Path, atoms: Atoms) -> None:
        self.run, self.path, self.atoms = run, path, atoms
        self.rows: list[list[float]] = []
        if path.exists():
            saved = np.load(path)
            self.rows = saved["rows"].tolist()
            atoms.positions, _ = saved["positions"], atoms.set_momenta(saved["momenta"])
        self.saved = time.monotonic()

    def save(self) -> None:
        """Writes the record; the file of before is replaced only when the new one is complete."""
        partial = self.path.with_suffix(".partial.npz")
        momenta = self.atoms.get_momenta()
        rows = np.array(self.rows).reshape(-1, len(COLUMNS))
        np.savez(partial, rows=rows, positions=self.atoms.positions, momenta=momenta, run=json.dumps(asdict(self.run)))
        partial.replace(self.path)
        self.saved = time.monotonic()

    def resume(self, stop: list[bool]) -> None:
        """Up to the run's last step, or until asked to stop."""
        atoms, dynamics = self.atoms, VelocityVerlet(self.atoms, DT)
        inverse_mass = 1.0 / atoms.get_masses()[:, None]
        forces, before = atoms.get_forces(), None
        while len(self.rows) < self.run.n_steps and not stop:
            velocities = atoms.get_velocities()
            begun = time.perf_counter()
            after = dynamics.step(forces=forces)
            seconds = time.perf_counter() - begun
            if before is not None:  # the shadow energy of the point in the middle
                curvature = -(velocities * (after - before)).sum() / (2 * DT)
                self.rows[-1][2] = DT**2 * (curvature / 12 - (forces**2 * inverse_mass).sum() / 24)
            before, forces = forces, after
            applications = atoms.calc.diagnostics["evaluations"]
            energies = atoms.get_potential_energy(), atoms.get_kinetic_energy()
            self.rows.append([*energies, np.nan, applications["cell"], applications["transposed"], seconds])
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()
        self.save()
