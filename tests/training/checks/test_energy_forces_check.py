"""Energies that the forces could not have made are doubted, and those that they did are not."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree
from copper_frames import relabelled, trajectory
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ase_andersonn.training.checks.energy_forces import STIFFNESS, check_energy_forces
from ase_andersonn.training.config import LabelKeys

KEYS = LabelKeys()


@pytest.mark.parametrize(
    ("energy", "forces", "length", "slope"),
    [
        (1.0, 1.0, 1.0, None),
        (Hartree, 1.0, 1.0, 1.0 / Hartree),
        (1.0, Hartree / Bohr, 1.0, Hartree / Bohr),
        (Hartree, Hartree / Bohr, 1.0, 1.0 / Bohr),
        (1.0, 1.0, Bohr, Bohr),
        (1.0, -1.0, 1.0, -1.0),
    ],
)
def test_energies_that_do_not_change_by_the_work_of_the_forces_are_doubted(
    energy: float, forces: float, length: float, slope: float | None
) -> None:
    frames = relabelled(trajectory(), energy, forces, length)
    found = check_energy_forces(frames, KEYS)
    if slope is None:
        assert not found
    else:
        said = float(found[0].split("energy changes by ")[1].split()[0])
        assert said == pytest.approx(slope, rel=0.1)


def test_frames_far_apart_or_few_are_no_contradiction() -> None:
    frames = relabelled(trajectory(), Hartree, 1.0, 1.0)
    assert not check_energy_forces(frames[:8], KEYS)
    for k, atoms in enumerate(frames):
        atoms.positions[0, 0] += 2.0 * k
        atoms.pbc = False
    assert not check_energy_forces(frames, KEYS)


def test_wrapped_frames_are_as_near_as_others() -> None:
    frames = trajectory()
    for k, atoms in enumerate(frames):
        atoms.positions += (k % 3) * atoms.cell[0]
    found = check_energy_forces(frames, KEYS)
    assert not found
    found = check_energy_forces(relabelled(frames, Hartree, 1.0, 1.0), KEYS)
    assert "contradict each other" in "".join(found)


def springs(n: int, spread: float, seed: int = 0) -> list[Atoms]:
    """Butane with a harmonic spring between all its atoms, turned and moved anyhow."""
    rng, atoms = np.random.default_rng(seed), molecule("trans-butane")
    rest = atoms.get_all_distances()
    frames = []
    for _ in range(n):
        frame = atoms.copy()
        frame.positions += rng.normal(scale=spread, size=frame.positions.shape)
        frame.positions = Rotation.random(rng=rng).apply(frame.positions) + rng.normal(size=3)
        vectors = frame.get_all_distances(vector=True)
        stretch = frame.get_all_distances() - rest
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
        forces = STIFFNESS * (stretch[:, :, None] * unit).sum(1)
        frame.calc = SinglePointCalculator(frame, energy=0.25 * STIFFNESS * np.square(stretch).sum(), forces=forces)
        frames.append(frame)
    return frames


def energies(frames: list[Atoms]) -> NDArray[np.float64]:
    return np.array([atoms.calc.results["energy"] for atoms in frames])


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.25])
def test_turned_molecules_agree_with_themselves(spread: float) -> None:
    found = check_energy_forces(springs(60, spread), KEYS)
    assert not found


@pytest.mark.parametrize(
    ("energy", "forces", "said"),
    [
        (0.0, 1.0, "the energy changes by 0 eV"),
        (1.0, 0.0, "the forces' work is 0 (medians)"),
        (1.0 / 14.0, 1.0, "the forces' work is"),
        (100.0, 1.0, "the forces' work is"),
        (1.0, -1.0, ""),
    ],
)
def test_labels_that_do_not_belong_together_are_doubted_far_apart_too(energy: float, forces: float, said: str) -> None:
    frames = springs(60, 0.22)
    for atoms in frames:
        atoms.calc.results["energy"] *= energy
        atoms.calc.results["forces"] = forces * atoms.calc.results["forces"]
    found = check_energy_forces(frames, KEYS, "validation ")
    assert "energies and forces of the validation frames contradict each other" in "".join(found)
    assert said in "".join(found)


def test_labels_of_other_frames_are_doubted() -> None:
    frames = springs(60, 0.22)
    forces = [atoms.calc.results["forces"] for atoms in frames]
    for k, atoms in enumerate(frames):
        atoms.calc.results["forces"] = forces[k - 1]
    found = check_energy_forces(frames, KEYS)
    assert "the energy does not change as the forces' work does (rank correlation" in "".join(found)


def test_every_second_energy_of_another_setting_is_doubted() -> None:
    frames = springs(60, 0.22)
    for atoms in frames[::2]:
        atoms.calc.results["energy"] += 1000.0
    found = check_energy_forces(frames, KEYS)
    assert "27 differ more in energy than forces could make them" in "".join(found)


def test_frames_with_and_without_energies_stand_side_by_side() -> None:
    frames = trajectory()
    others = [Atoms("N2", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1 + 0.01 * k]]) for k in range(5)]
    for atoms in others:
        atoms.calc = SinglePointCalculator(atoms, forces=np.zeros((2, 3)))
    found = check_energy_forces([*others, *frames], KEYS)
    assert not found


def test_one_atom_that_hops_while_others_stay_is_no_near_frame() -> None:
    """Its displacement is little on average, and the trapezoidal rule says nothing of so long a step."""
    frames = []
    for k in range(40):
        atoms = bulk("Pd", cubic=True) * 2 + Atoms("H", [[0.0, 0.0, 1.3 * k]])
        atoms.set_cell([60.0] * 3)
        forces = np.zeros((33, 3))
        forces[-1, 2] = 0.5  # the same before and behind the barrier
        atoms.calc = SinglePointCalculator(atoms, energy=0.2 * (k % 2), forces=forces)
        frames.append(atoms)
    found = check_energy_forces(frames, KEYS)
    assert not found


@pytest.mark.parametrize("held", [True, False])
def test_forces_on_atoms_that_are_held_do_not_count(*, held: bool) -> None:
    """Relaxed adsorbates on a slab whose lower layers are held where their forces are large."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(40):
        atoms = Atoms("Cu8", rng.uniform(size=(8, 3)), cell=[9.0, 9.0, 9.0], pbc=True)
        atoms.positions[:] = frames[0].positions if frames else atoms.positions
        atoms.positions[4:] += rng.normal(scale=0.1, size=(4, 3))
        forces = np.zeros((8, 3))
        forces[: 4 if held else 8] = 1.0
        forces[4:] += rng.normal(scale=1e-3, size=(4, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=0.5 * float(rng.normal()), forces=forces)
        frames.append(atoms)
    found = check_energy_forces(frames, KEYS)
    assert ("contradict each other" in "".join(found)) == (not held)


def test_one_energy_that_no_force_could_make_is_named() -> None:
    frames = springs(60, 0.1)
    frames[7].calc.results["energy"] += 200.0
    found = check_energy_forces(frames, KEYS)
    assert "differ more in energy than forces could make them: frames " in "".join(found)
    assert "7 and" in "".join(found)


def test_the_same_geometry_with_two_energies_is_named_however_far_in_the_file() -> None:
    frames = springs(140, 0.1)
    frames.append(frames[0].copy())
    results = frames[0].calc.results
    frames[-1].calc = SinglePointCalculator(frames[-1], energy=results["energy"], forces=results["forces"])
    found = check_energy_forces(frames, KEYS)
    assert not found
    frames[-1].calc.results["energy"] += 0.1
    found = check_energy_forces(frames, KEYS)
    assert "1 differ more in energy than forces could make them: frames 0 and 140, 0 Å apart (+0.1 eV)" in "".join(
        found
    )


def test_relaxed_frames_need_not_tell_of_the_barriers_between_them() -> None:
    """As of an atom on sites of a surface: 0.3 eV between sites 1.2 Å apart, and forces of 0.01 eV/Å."""
    rng, frames, rest = np.random.default_rng(0), [], trajectory(2)[0]
    for k in range(40):
        atoms = rest.copy()
        atoms.positions[0] += [1.2 * (k % 4 == axis) for axis in range(3)]
        atoms.positions += rng.normal(scale=1e-3, size=atoms.positions.shape)
        forces = rng.normal(scale=0.01, size=atoms.positions.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=0.1 * (k % 4) + 1e-4 * rng.normal(), forces=forces)
        frames.append(atoms)
    found = check_energy_forces(frames, KEYS)
    assert not found
