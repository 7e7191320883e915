"""Spins as atoms, and the grid found again in atoms."""

from typing import Any, get_args

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_andersonn.lattice.spins import PRIMITIVE, Lattice, Sites, read_values, spin_lattice

VALUES = np.array([-1.0, 1.0])


@pytest.mark.parametrize(("kind", "n_neighbors"), [("chain", 2), ("square", 4), ("triangular", 6), ("cubic", 6)])
def test_every_site_has_its_neighbors(kind: Any, n_neighbors: int) -> None:
    atoms = spin_lattice(kind, 4, spacing=2.5)
    assert len(atoms) == 4 ** len(PRIMITIVE[kind])
    distances = atoms.get_all_distances(mic=True)
    assert ((np.abs(distances - 2.5) < 1e-9).sum(1) == n_neighbors).all()
    assert distances[distances > 0].min() == pytest.approx(2.5)
    assert kind in get_args(Lattice)


def test_spins() -> None:
    assert (spin_lattice("square", 3).get_initial_magnetic_moments() == 1).all()
    drawn = [spin_lattice("square", 20, spins="random", seed=seed) for seed in (0, 0, 1)]
    moments = [atoms.get_initial_magnetic_moments() for atoms in drawn]
    assert set(moments[0].tolist()) == {-1.0, 1.0}
    np.testing.assert_array_equal(moments[0], moments[1])
    assert (moments[0] != moments[2]).any()
    given = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(spin_lattice("square", (2, 3), spins=given).get_initial_magnetic_moments(), range(6))


@pytest.mark.parametrize("kind", list(PRIMITIVE))
def test_sites_are_found_whatever_the_order(kind: Any) -> None:
    sizes = (3, 4, 5)[: len(PRIMITIVE[kind])]
    atoms = spin_lattice(kind, sizes, spacing=1.7)
    sites = Sites.of(atoms, kind)
    assert sites.sizes == sizes
    np.testing.assert_array_equal(sites.site, np.arange(len(atoms)))
    order = np.random.default_rng(0).permutation(len(atoms))
    shuffled = atoms[order]
    shuffled.rotate(33, (1, 2, 3), rotate_cell=True)
    shuffled.positions += 0.3 * shuffled.cell[0] / sizes[0]
    shuffled.positions[::3] -= 2 * shuffled.cell[0]  # on other periodic images
    found = Sites.of(shuffled, kind)
    origin = found.site[np.argsort(order)][0]
    assert len(np.unique(found.site)) == len(atoms)
    np.testing.assert_array_equal(found.atom[found.site], np.arange(len(atoms)))
    shift = np.unravel_index(origin, sizes)
    moved = np.roll(np.arange(len(atoms)).reshape(sizes), [-s for s in shift], range(len(sizes))).reshape(-1)
    np.testing.assert_array_equal(moved[sites.site], found.site[np.argsort(order)])


def test_a_small_shift_changes_nothing_a_long_one_moves_the_origin() -> None:
    atoms = spin_lattice("square", 4)
    atoms.positions += 0.4
    np.testing.assert_array_equal(Sites.of(atoms, "square").site, np.arange(16))
    atoms.positions += [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(Sites.of(atoms, "square").site, np.roll(np.arange(16).reshape(4, 4), -1, 0).ravel())


def broken(kind: str) -> Atoms:
    atoms = spin_lattice("square", 4)
    if kind == "displaced":
        atoms.positions[5] += [0.1, 0.0, 0.0]
    elif kind == "lifted":
        atoms.positions[5] += [0.0, 0.0, 0.1]
    elif kind == "vacancy":
        del atoms[3]
    elif kind == "double":
        atoms.positions[5] = atoms.positions[6]
    elif kind == "sheared":
        atoms.set_cell([[4, 0, 0], [1, 4, 0], [0, 0, 0]], scale_atoms=True)
    elif kind == "stretched":
        atoms.set_cell([[4.5, 0, 0], [0, 4, 0], [0, 0, 0]], scale_atoms=True)
    elif kind == "no cell":
        atoms.set_cell(np.zeros((3, 3)))
    elif kind == "layered":
        atoms.set_cell([4, 4, 4])
        atoms.pbc = True
    elif kind == "outside":
        atoms.pbc = (False, True, False)
        atoms.positions[0] += [4.0, 0.0, 0.0]
    elif kind == "crystal":
        return bulk("Fe", cubic=True) * (2, 2, 1)
    elif kind == "empty":
        return Atoms()
    elif kind == "nan":
        atoms.positions[2] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("displaced", "atom 5 is 0.1 Å away"),
        ("lifted", "atom 5 is 0.1 Å away"),
        ("vacancy", "15 atoms do not fill"),
        ("double", "2 atoms share site 6"),
        ("sheared", "this is not a square lattice"),
        ("stretched", "do not fill"),
        ("no cell", "cell vectors span"),
        ("layered", "periodic along its first 2"),
        ("outside", "1 atoms lie outside the cell"),
        ("crystal", "8 atoms do not fill"),
        ("empty", "no atoms"),
        ("nan", "away from the nearest site"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_lattice(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sites.of(broken(kind), "square")


def test_lattices_are_distinguished() -> None:
    with pytest.raises(ValueError, match=r"angles are 60\.0°; this is not a square lattice"):
        Sites.of(spin_lattice("triangular", 4), "square")
    with pytest.raises(ValueError, match="not a triangular lattice"):
        Sites.of(spin_lattice("square", 4), "triangular")


def test_moves_of_single_atoms_are_noticed() -> None:
    atoms = spin_lattice("square", 4)
    sites, changed = Sites.of(atoms, "square"), np.array([5, 6])
    sites.check(atoms, changed)
    atoms.positions[5] += atoms.cell[0]  # another image of the same site
    sites.check(atoms, changed)
    atoms.positions[5] += [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="left its site"):
        sites.check(atoms, changed)


def test_values() -> None:
    np.testing.assert_array_equal(read_values(np.array([1.0, -1.0, 1.0]), VALUES), [1, 0, 1])
    np.testing.assert_array_equal(read_values(np.array([2.0, 0.0, -2.0]), np.array([-2.0, 0.0, 2.0])), [2, 1, 0])
    assert len(read_values(np.zeros(0), VALUES)) == 0
    with pytest.raises(ValueError, match="2 magnetic moments are not among -1, 1: 0, 2"):
        read_values(np.array([1.0, 0.0, 2.0]), VALUES)
    with pytest.raises(ValueError, match="not among"):
        read_values(np.array([1.0, np.nan]), VALUES)
    with pytest.raises(ValueError, match="one number per site"):
        read_values(np.ones((3, 3)), VALUES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "hexagonal", "size": 3}, "no lattice 'hexagonal'; choose one of chain"),
        ({"kind": "square", "size": (3, 3, 3)}, "has 2 axes"),
        ({"kind": "square", "size": 0}, "≥ 1 sites"),
        ({"kind": "square", "size": 3, "periodic": (True,)}, "has 2 axes"),
        ({"kind": "square", "size": 3, "spins": [1, -1]}, "2 spins were given for 9 sites"),
        ({"kind": "square", "size": 3, "spins": "down"}, "give 'up', 'random'"),
        ({"kind": "square", "size": 3, "spacing": 0.0}, "positive"),
    ],
)
def test_what_cannot_be_built(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spin_lattice(**arguments)
