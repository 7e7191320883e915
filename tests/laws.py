"""The physical laws every potential is put through.

Each law takes a calculator and a structure, and raises AssertionError where it is broken. `check_calculator` of the
package holds ASE's contract, with forces and stress as derivatives of the energy; these are the symmetries beside it.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TOL = 1e-9
"""Relative difference allowed in float64 at a tight tolerance."""


def results(calc: Any, atoms: Atoms) -> dict[str, Any]:
    """Energy, energies, forces and, where there is a volume, stress and, where the calculator has them, stresses."""
    names = ["energy", "energies", "forces"] + (["stress"] if atoms.pbc.all() else [])
    names += ["stresses"] if atoms.pbc.all() and "stresses" in calc.implemented_properties else []
    copied = atoms.copy()
    return {name: calc.get_property(name, copied) for name in names}


def same(given: dict[str, Any], expected: dict[str, Any], tol: float = TOL) -> None:
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(given[name], value, rtol=0, atol=tol * scale, err_msg=name)


def translation(calc: Any, atoms: Atoms, tol: float = TOL) -> None:
    """A shift of all atoms changes nothing."""
    moved = atoms.copy()
    moved.translate([1.234, -7.71, 0.377])
    same(results(calc, moved), results(calc, atoms), tol)


def rotation(calc: Any, atoms: Atoms, tol: float = TOL, seed: int = 0) -> None:
    """`E(Rx) = E(x)`, `F(Rx) = R F(x)`, `σ(Rx) = R σ(x) Rᵀ`, of atoms too, for a rotation and a reflection."""
    given = results(calc, atoms)
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    for turn in (matrix, -matrix):
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ turn.T)
        turned.set_positions(atoms.positions @ turn.T)
        expected = {**given, "forces": given["forces"] @ turn.T}
        if "stress" in given:
            full = voigt_6_to_full_3x3_stress(given["stress"])
            expected["stress"] = full_3x3_to_voigt_6_stress(turn @ full @ turn.T)
        if "stresses" in given:
            full = voigt_6_to_full_3x3_stress(given["stresses"])
            expected["stresses"] = full_3x3_to_voigt_6_stress(turn @ full @ turn.T)
        same(results(calc, turned), expected, tol)


def permutation(calc: Any, atoms: Atoms, tol: float = TOL, seed: int = 0) -> None:
    """The order of the atoms does not matter."""
    order = np.random.default_rng(seed).permutation(len(atoms))
    given = results(calc, atoms)
    of_atoms = {name: given[name][order] for name in ("forces", "energies", "stresses") if name in given}
    expected = {**given, **of_atoms}
    same(results(calc, atoms[order]), expected, tol)


def wrapping(calc: Any, atoms: Atoms, tol: float = TOL, seed: int = 0) -> None:
    """Lattice translations of single atoms, and another choice of the lattice vectors, do not matter."""
    given = results(calc, atoms)
    moved = atoms.copy()
    jumps = np.random.default_rng(seed).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    moved.positions += jumps @ atoms.cell.array
    same(results(calc, moved), given, tol)
    if atoms.pbc[:2].all():
        sheared = atoms.copy()
        sheared.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) @ atoms.cell.array, scale_atoms=False)
        same(results(calc, sheared), given, tol)


def supercell(calc: Any, atoms: Atoms, repeats: int = 2, tol: float = TOL) -> None:
    """`n` copies of a cell have `n` times its energy, the same forces and the same stress."""
    times = tuple(repeats if periodic else 1 for periodic in atoms.pbc)
    n = int(np.prod(times))
    given = results(calc, atoms)
    expected = {
        **given,
        "energy": n * given["energy"],
        "forces": np.tile(given["forces"], (n, 1)),
        "energies": np.tile(given["energies"], n),
    }
    if "stresses" in given:  # an atom's part of a larger volume is smaller
        expected["stresses"] = np.tile(given["stresses"] / n, (n, 1))
    same(results(calc, atoms * times), expected, tol)


def no_net_force(calc: Any, atoms: Atoms, tol: float = TOL) -> None:
    """Forces sum to zero, and where nothing is periodic so do torques."""
    forces = results(calc, atoms)["forces"]
    scale = max(1.0, float(np.abs(forces).max()))
    np.testing.assert_allclose(forces.sum(0), 0.0, atol=tol * scale)
    if not atoms.pbc.any():
        np.testing.assert_allclose(np.cross(atoms.positions, forces).sum(0), 0.0, atol=10 * tol * scale)


def sums(calc: Any, atoms: Atoms, tol: float = TOL) -> None:
    """`Σ energies = energy`, `Σ stresses = stress`."""
    given = results(calc, atoms)
    same({"energy": given["energies"].sum()}, {"energy": given["energy"]}, tol)
    if atoms.pbc.all():
        same({"stress": calc.get_property("stresses", atoms.copy()).sum(0)}, {"stress": given["stress"]}, tol)


def separation(calc: Any, atoms: Atoms, cutoff: float, tol: float = TOL) -> None:
    """Two molecules further apart than the cutoff have the sum of their energies."""
    far = atoms.copy()
    far.positions[:, 0] += np.ptp(atoms.positions[:, 0]) + cutoff + 0.01
    given = results(calc, atoms)
    both = {"energy": 2 * given["energy"], "forces": np.tile(given["forces"], (2, 1))}
    same(results(calc, atoms + far), both, tol)


def repulsion(calc: Any, pair: tuple[str, str], distances: Sequence[float]) -> None:
    """Two atoms far too close push each other apart, the more the closer they are. Distances in falling order, Å."""
    pairs = [Atoms(pair, positions=[[0.0, 0.0, 0.0], [r, 0.0, 0.0]]) for r in distances]
    pushes = [results(calc, atoms)["forces"][1, 0] for atoms in pairs]
    assert pushes[0] > 0, f"{pair} at {distances[0]} Å attract each other with {pushes[0]} eV/Å"
    assert all(nearer > farther for farther, nearer in pairwise(pushes)), pushes


def crossings(atoms: Atoms, mover: int, direction: Floats, distance: float, reach: float) -> list[float]:
    """Where an atom that moves along a line is at a distance from another one: path lengths within `reach`, Å.

    Only the nearest images of the others are looked at.
    """
    vectors, _ = find_mic(atoms.positions - atoms.positions[mover], atoms.cell, atoms.pbc)
    found = []
    for index, d in enumerate(vectors):
        along, square = float(d @ direction), float(d @ d)
        root = along**2 - square + distance**2
        if index != mover and root > 0:
            found += [t for t in (along - root**0.5, along + root**0.5) if abs(t) <= reach]
    return sorted(found)


def smooth(
    calc: Any,
    atoms: Atoms,
    mover: int,
    distance: float,
    *,
    reach: float = 1.5,
    step: float = 1e-7,
    energy: float = 1e-6,
    forces: float = 1e-4,
    seed: int = 0,
) -> int:
    """Energy and forces do not jump where neighbours come to a distance: `|E(t + δ) − E(t − δ)|` is small.

    Args:
        calc: an ASE calculator.
        atoms: a structure.
        mover: the atom that moves, along a random line.
        distance: Å; the cutoff, or another distance at which something ends.
        reach: Å the atom moves to either side.
        step: δ, Å.
        energy: largest jump, eV.
        forces: largest jump, eV/Å.
        seed: of the line.

    Returns:
        the number of crossings that were looked at.
    """
    direction = np.random.default_rng(seed).normal(size=3)
    direction /= np.linalg.norm(direction)
    places = crossings(atoms, mover, direction, distance, reach)
    for place in places:
        sides = []
        for t in (place - step, place + step):
            moved = atoms.copy()
            moved.positions[mover] += t * direction
            sides.append(results(calc, moved))
        before, after = sides
        slope = 2 * step * float(np.abs(before["forces"]).max())
        assert abs(after["energy"] - before["energy"]) <= energy + slope, f"the energy jumps at {place} Å"
        assert np.abs(after["forces"] - before["forces"]).max() <= forces, f"forces jump at {place} Å"
    return len(places)


LAWS: dict[str, Callable[..., None]] = {
    law.__name__: law for law in (translation, rotation, permutation, wrapping, supercell, no_net_force, sums)
}
"""Laws for every structure."""
