"""The edge list: its laws, and the lists of ASE and vesin."""

import numpy as np
import pytest
import vesin
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from input_structures import STRUCTURES, ase_edge_set, edge_set, edge_set_of

from ase_andersonn.structures import Edges, neighbor_edges, neighbors


def edges_of(atoms: Atoms, cutoff: float) -> Edges:
    return neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)


def check_laws(edges: Edges, atoms: Atoms, cutoff: float) -> None:
    """Sorted, shorter than the cutoff, vectors as the formula says, reverse an involution that turns edges round."""
    everyone = np.arange(len(edges))
    assert (np.diff(edges.center) >= 0).all()
    vectors = atoms.positions[edges.other] + edges.offset @ atoms.cell.array - atoms.positions[edges.center]
    np.testing.assert_allclose(edges.vectors, vectors, atol=1e-12)
    assert (np.linalg.norm(edges.vectors, axis=1) < cutoff).all()
    np.testing.assert_array_equal(edges.reverse[edges.reverse], everyone)
    assert (edges.reverse != everyone).all()
    np.testing.assert_array_equal(edges.center[edges.reverse], edges.other)
    np.testing.assert_array_equal(edges.offset[edges.reverse], -edges.offset)
    np.testing.assert_array_equal(edges.vectors[edges.reverse], -edges.vectors)
    assert {edges.center.dtype, edges.other.dtype, edges.reverse.dtype} == {np.dtype(np.int64)}
    assert edges.offset.dtype == np.int32
    assert len(edge_set_of(edges)) == len(set(edge_set_of(edges)))


@pytest.mark.parametrize("cutoff", [1.7, 3.3, 6.1])
@pytest.mark.parametrize("name", STRUCTURES)
def test_laws_and_references(name: str, cutoff: float) -> None:
    atoms = STRUCTURES[name]
    edges = edges_of(atoms, cutoff)
    check_laws(edges, atoms, cutoff)
    assert edge_set_of(edges) == ase_edge_set(atoms, cutoff)
    full = vesin.NeighborList(cutoff=cutoff, full_list=True)
    found = full.compute(atoms.positions, atoms.cell.array, atoms.pbc.tolist(), "ijS")
    assert edge_set_of(edges) == edge_set(*found)


@given(
    cell=st.lists(st.floats(-4.0, 4.0), min_size=9, max_size=9).map(lambda x: np.reshape(x, (3, 3))),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    fractions=st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=12),
    cutoff=st.floats(0.5, 4.5),
)
def test_any_cell(cell: np.ndarray, pbc: tuple[bool, ...], fractions: list[float], cutoff: float) -> None:
    cell = cell + np.diag(np.where(np.diag(cell) < 0.0, -3.0, 3.0))
    if abs(np.linalg.det(cell)) < 8.0:
        return  # so flat that the reference needs too many images
    n_atoms = len(fractions) // 3
    positions = np.reshape(fractions[: 3 * n_atoms], (n_atoms, 3)) @ cell + 0.01 * np.arange(n_atoms)[:, None]
    atoms = Atoms(numbers=[1] * n_atoms, positions=positions, cell=cell, pbc=pbc)
    edges = edges_of(atoms, cutoff)
    check_laws(edges, atoms, cutoff)
    near_the_cutoff = np.abs(np.linalg.norm(edges_of(atoms, cutoff + 0.1).vectors, axis=1) - cutoff) < 1e-9
    if not near_the_cutoff.any():
        assert edge_set_of(edges) == ase_edge_set(atoms, cutoff)


def test_known_coordination() -> None:
    a = 3.6
    atoms = bulk("Cu", "fcc", a=a)
    shells = [12, 6, 24, 12, 24]
    for k in range(len(shells)):
        between = a * (np.sqrt((k + 1) / 2) + np.sqrt((k + 2) / 2)) / 2
        assert len(edges_of(atoms, between)) == sum(shells[: k + 1])


def test_one_boolean_stands_for_three() -> None:
    atoms = STRUCTURES["bulk"]
    edges = neighbor_edges(atoms.positions, atoms.cell.array, True, 4.0)
    assert edge_set_of(edges) == edge_set_of(edges_of(atoms, 4.0))


def test_no_atoms_no_edges() -> None:
    assert len(neighbor_edges(np.zeros((0, 3)), np.eye(3), True, 3.0)) == 0


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_cutoff_is_a_positive_number(cutoff: float) -> None:
    with pytest.raises(ValueError, match=r"cutoff is .* it has to be a positive number"):
        neighbor_edges(np.zeros((1, 3)), np.eye(3), True, cutoff)


@pytest.mark.parametrize("n_atoms", [300, 70_000, 200_000])
def test_sort_of_many_atoms(n_atoms: int) -> None:
    """More atoms than a 16-bit key can count."""
    center = np.random.default_rng(0).integers(0, n_atoms, 300_000)
    order, reverse = neighbors._by_center(center, n_atoms)
    np.testing.assert_array_equal(order, np.argsort(center, kind="stable"))
    np.testing.assert_array_equal((order[reverse] - order) % len(order), len(order) // 2)


FAR = {
    "molecule along a line": (np.diag([6e5, 0.0, 0.0])[[0, 1]], np.zeros((3, 3)), False),
    "molecule in a plane": (np.array([[0.0, 0.0, 0.0], [3e3, 3e3, 1.0], [2.0, 0.0, 0.0]]), np.zeros((3, 3)), False),
    "atom out of this world": (np.array([[0.0, 0.0, 0.0], [1e15, 0.0, 1.0], [2.0, 0.0, 0.0]]), np.zeros((3, 3)), False),
    "atoms along a line": (np.diag([1e8, 0.0, 0.0])[[0, 1]], np.zeros((3, 3)), False),
    "sheet": (np.random.default_rng(0).random((500, 3)) * [2e3, 2e3, 3.0], np.diag([2e3, 2e3, 3.0]), True),
    "sheet in vacuum": (np.random.default_rng(0).random((500, 3)) * [2e3, 2e3, 0.0], np.diag([2e3, 2e3, 0]), [1, 1, 0]),
    "chain": (np.array([[0.0, 0.0, 0.0], [9e5, 1.0, 1.0]]), np.diag([1e6, 3.0, 3.0]), True),
    "skewed sheet": (np.zeros((1, 3)), np.array([[3e3, 0.0, 0.0], [2.9e3, 3e3, 0.0], [1.0, 0.5, 2.0]]), True),
}


@pytest.mark.parametrize("name", FAR)
def test_long_and_thin(name: str) -> None:
    """A grid of search cells that is long one way and thin another."""
    positions, cell, pbc = FAR[name]
    atoms = Atoms(numbers=[1] * len(positions), positions=positions, cell=cell, pbc=pbc)
    edges = edges_of(atoms, 5.0)
    check_laws(edges, atoms, 5.0)
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    near = list(map(tuple, np.argwhere((distances < 5.0) & (distances > 0.0)).tolist()))
    home = (edges.offset == 0).all(1)
    assert sorted(zip(edges.center[home].tolist(), edges.other[home].tolist(), strict=True)) == near


@pytest.mark.parametrize("far", [1e6, 1e8])
def test_atoms_that_left_a_sheet_are_an_error_at_once(far: float) -> None:
    with pytest.raises(ValueError, match=r"Å apart along open directions, more than 10000 Å"):
        neighbors.neighbor_edges([[0.0, 0.0, 0.0], [0.0, 0.0, far]], np.diag([5.0, 5.0, 0.0]), [1, 1, 0], 5.0)


def test_an_edge_of_exactly_the_cutoff_is_none() -> None:
    """Whichever search finds it: in a cell, in a molecule, and where an atom has flown off."""
    pair = np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
    for far in ([], [[6e5, 0.0, 0.0]]):
        assert len(neighbor_edges([*pair, *far], np.zeros((3, 3)), False, 5.0)) == 0
        assert len(neighbor_edges([*pair, *far], np.zeros((3, 3)), False, np.nextafter(5.0, 6.0))) == 2
    assert len(neighbor_edges(np.zeros((1, 3)), 4.0 * np.eye(3), True, 4.0)) == 0


def test_a_cell_is_too_small_where_an_atom_would_have_a_hundred_thousand_images() -> None:
    """(2 cutoff / height)^3, or what is periodic of it."""
    atom = np.zeros((1, 3))
    with pytest.raises(ValueError, match="the cell is too small"):
        neighbor_edges(atom, 0.21 * np.eye(3), True, 5.0)
    with pytest.raises(ValueError, match="the cell is too small"):
        neighbor_edges(atom, np.diag([9e-5, 1.0, 1.0]), [True, False, False], 5.0)
    assert len(neighbor_edges(atom, np.diag([0.01, 1.0, 1.0]), [True, False, False], 5.005)) == 1000
