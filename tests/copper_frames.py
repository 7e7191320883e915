"""Frames of copper with energies and forces of effective medium theory."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.units import fs


def copper(n: int, forces_times: float = 1.0) -> list[Atoms]:
    """Rattled copper whose forces are a multiple of the right ones."""
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(scale=rng.uniform(0.02, 0.2), size=atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces_times * forces)
        frames.append(atoms)
    return frames


def trajectory(n: int = 30) -> list[Atoms]:
    """Molecular dynamics of copper, a frame every 4 fs."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    thermalize_momenta(atoms, 600, rng=np.random.default_rng(0))
    frames = []
    for _ in VelocityVerlet(atoms, 4 * fs).irun(n - 1):
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        frames.append(atoms.copy())
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=energy, forces=forces)
    return frames


def relabelled(frames: list[Atoms], energy: float, forces: float, length: float) -> list[Atoms]:
    """The frames in other units, given as these units in ASE's."""
    found = []
    for atoms in frames:
        other = Atoms(atoms.numbers, atoms.positions / length, cell=atoms.cell / length, pbc=atoms.pbc)
        labels = atoms.calc.results
        other.calc = SinglePointCalculator(other, energy=labels["energy"] / energy, forces=labels["forces"] / forces)
        found.append(other)
    return found
