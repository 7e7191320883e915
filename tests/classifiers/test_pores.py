"""Void features: right where geometry gives the answer, and the same for every cell of a framework."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.spacegroup import crystal

from ase_andersonn.classifiers.features.pores import (
    MAX_RADIUS,
    PROBE_RADII,
    QUANTILES,
    STEP_DIAMETERS,
    n_pore_features,
    pore_features,
    van_der_waals_radii,
)

SAME = np.array([0.02, *(0.02 for _ in STEP_DIAMETERS), *(0.1 for _ in QUANTILES), *(0.015 for _ in PROBE_RADII)])
"""How far the features of two cells of one framework may be apart: Å, steps, Å and shares of the cell."""


def diameter(atoms: Atoms) -> float:
    return float(pore_features(atoms)[0])


def framework(seed: int, n_atoms: int = 12) -> Atoms:
    """Carbon, oxygen and zinc at random in a skewed cell of 12 Å, 1.1 Å apart at least."""
    rng = np.random.default_rng(seed)
    cell = 12.0 * np.eye(3) + rng.uniform(-2.5, 2.5, (3, 3))
    atoms = Atoms(cell=cell, pbc=True)
    while len(atoms) < n_atoms:
        atoms += Atoms(rng.choice(["C", "O", "Zn"]), positions=rng.uniform(size=(1, 3)) @ cell)
        if len(atoms) > 1 and atoms.get_distances(-1, range(len(atoms) - 1), mic=True).min() < 1.1:
            del atoms[-1]
    return atoms


# Geometry gives the answer


@pytest.mark.parametrize(("symbol", "a"), [("C", 6.0), ("Zn", 9.0), ("K", 15.0)])
def test_the_largest_sphere_of_a_simple_cubic_crystal_is_at_the_centre(symbol: str, a: float) -> None:
    atoms = Atoms(symbol, cell=[a, a, a], pbc=True)
    radius = 3**0.5 / 2 * a - van_der_waals_radii()[atoms.numbers[0]]
    assert diameter(atoms) == pytest.approx(2 * radius, abs=0.02)


def test_the_largest_sphere_of_a_face_centred_crystal_is_in_the_octahedral_site() -> None:
    assert diameter(bulk("Ne", "fcc", 8.0)) == pytest.approx(2 * (4.0 - 1.54), abs=0.02)


def test_a_sphere_is_as_far_from_large_as_from_small_atoms() -> None:
    # between sheets of hydrogen and of xenon so dense that each is a wall
    flat = [(x, y, 0.0) for x in range(4) for y in range(4)]
    walls = Atoms("H16", flat) + Atoms("Xe16", [(x, y, 10.0) for x, y, _ in flat])
    walls.set_cell([4.0, 4.0, 20.0])
    walls.pbc = True
    # over the middle of a square; each wall is √(1/2) Å away sideways
    height = np.linspace(0.0, 10.0, 100001)
    s = np.minimum(np.hypot(height, 0.5**0.5) - 1.09, np.hypot(10.0 - height, 0.5**0.5) - 2.16)
    assert diameter(walls) == pytest.approx(2 * s.max(), abs=0.02)


def test_the_cavity_of_a_known_framework() -> None:
    # MOF-5: Li et al., Nature 402, 276 (1999); 15 Å is its usual value
    sites = [
        *((0.2935, 0.2065, 0.2065), (0.25, 0.25, 0.25), (0.2806, 0.2194, 0.1338), (0.25, 0.25, 0.1113)),
        *((0.25, 0.25, 0.0538), (0.2829, 0.2171, 0.0269), (0.3049, 0.1951, 0.0448)),
    ]
    species = ["Zn", "O", "O", "C", "C", "C", "H"]
    cell = [25.67, 25.67, 25.67, 90, 90, 90]
    mof5 = crystal(species, sites, spacegroup=225, cellpar=cell, primitive_cell=True)
    assert diameter(mof5) == pytest.approx(15.0, abs=0.1)


def test_void_fractions_of_a_dilute_crystal() -> None:
    fractions = pore_features(Atoms("C", cell=[12.0, 12.0, 12.0], pbc=True))[-len(PROBE_RADII) :]
    expected = [1.0 - 4 / 3 * np.pi * (1.70 + probe) ** 3 / 12.0**3 for probe in PROBE_RADII]
    assert np.allclose(fractions, expected, atol=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_the_cell_holds_a_larger_sphere(seed: int) -> None:
    atoms = framework(seed)
    features = pore_features(atoms)
    points = np.random.default_rng(seed).uniform(size=(5000, 3)) @ atoms.cell.array
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ atoms.cell.array
    nearest = np.full(len(points), np.inf)
    for position, radius in zip(atoms.positions, van_der_waals_radii()[atoms.numbers], strict=True):
        for shift in shifts:
            np.minimum(nearest, np.linalg.norm(points - position - shift, axis=1) - radius, out=nearest)
    assert 2 * nearest.max() - 0.02 <= features[0] <= 2 * nearest.max() + 1.2
    quantiles = features[1 + len(STEP_DIAMETERS) : -len(PROBE_RADII)]
    assert np.allclose(quantiles, np.quantile(nearest, QUANTILES), atol=0.15)


def test_steps_rise_at_their_diameters() -> None:
    steps = pore_features(Atoms("C", cell=[8.0, 8.0, 8.0], pbc=True))[1 : 1 + len(STEP_DIAMETERS)]
    large = np.array(STEP_DIAMETERS) < 3**0.5 * 8.0 - 2 * 1.70
    assert ((steps > 0.5) == large).all()
    assert (np.diff(steps) <= 0).all()


# One framework, one answer


@pytest.mark.parametrize("seed", range(4))
def test_a_framework_has_the_features_of_its_cell(seed: int) -> None:
    atoms = framework(seed)
    features = pore_features(atoms)
    assert features.shape == (n_pore_features(),)
    assert features[0] > 3.0
    rng = np.random.default_rng(seed)
    turned, moved, wrapped = atoms.copy(), atoms.copy(), atoms.copy()
    turned.rotate(50.0, (1.0, 2.0, 3.0), rotate_cell=True)
    moved.positions += rng.normal(size=3)
    wrapped.positions += rng.integers(-3, 4, (len(atoms), 3)) @ atoms.cell.array
    sheared = make_supercell(atoms, [[1, 0, 0], [3, 1, 0], [-2, 1, 1]])
    doubled = make_supercell(atoms, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    for other in (turned, wrapped, atoms[rng.permutation(len(atoms))], sheared):
        assert np.allclose(pore_features(other), features, atol=1e-6)
    for other in (moved, doubled, atoms.repeat((1, 2, 1))):
        assert (np.abs(pore_features(other) - features) <= SAME).all()


def test_primitive_and_conventional_cell() -> None:
    primitive, conventional = bulk("Ne", "fcc", 8.0), bulk("Ne", "fcc", 8.0, cubic=True)
    assert (np.abs(pore_features(conventional) - pore_features(primitive)) <= SAME).all()


# Structures without cavities, or with nothing else


@pytest.mark.parametrize("atoms", [molecule("C6H6"), fcc111("Cu", (2, 2, 3), vacuum=8.0)], ids=["molecule", "slab"])
def test_what_is_open_to_the_vacuum_encloses_nothing(atoms: Atoms) -> None:
    assert not pore_features(atoms).any()


def test_a_metal_has_no_room() -> None:
    features = pore_features(bulk("W"))
    assert features[0] == 0.0
    assert not features[-len(PROBE_RADII) + 2 :].any()


def test_vacuum_counts_up_to_a_limit() -> None:
    alone = Atoms("He", cell=[200.0, 200.0, 200.0], pbc=True)
    assert diameter(alone) == 2 * MAX_RADIUS
    assert diameter(fcc111("Cu", (1, 1, 3), vacuum=500.0, periodic=True)) == 2 * MAX_RADIUS


def test_elements_without_a_radius() -> None:
    with pytest.raises(ValueError, match=r"Z = \[110\]"):
        pore_features(Atoms("Ds", cell=[5, 5, 5], pbc=True))
    assert np.isfinite(van_der_waals_radii()[1:]).all()
