"""Graphs of edge lists from elsewhere: equal to those of the package's own neighbour list, or a clear error."""

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given
from hypothesis import strategies as st
from input_structures import STRUCTURES
from test_graph import CUTOFF, assert_same, check_laws, graph_of

from ase_andersonn.structures import Graph, graph_from_edges
from ase_andersonn.structures.convert import SameSiteError
from ase_andersonn.structures.neighbors import edges_of

EDGE_FIELDS = ("center", "other", "offset")


def arguments(systems: list[Atoms], *, of_ase: bool = False) -> dict[str, Any]:
    """Arguments of `graph_from_edges`, with ASE's or the package's neighbour list of each structure."""
    parts, first = [], 0
    for atoms in systems:
        if of_ase:
            center, other, offset = neighbor_list("ijS", atoms, CUTOFF)
        else:
            edges = edges_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
            center, other, offset = edges.center, edges.other, edges.offset
        parts.append((center + first, other + first, offset))
        first += len(atoms)
    return {
        "numbers": np.concatenate([atoms.numbers for atoms in systems]),
        "positions": np.concatenate([atoms.positions for atoms in systems]),
        "cell": np.stack([atoms.cell.array for atoms in systems]),
        "pbc": np.stack([atoms.pbc for atoms in systems]),
        "system": np.repeat(np.arange(len(systems)), [len(atoms) for atoms in systems]),
        "dtype": torch.float64,
    } | {name: np.concatenate(values) for name, values in zip(EDGE_FIELDS, zip(*parts, strict=True), strict=True)}


def by_neighbor(graph: Graph) -> list[list[tuple[float, ...]]]:
    """Neighbour and vector of the edges of each atom, sorted, so that graphs can be compared edge by edge."""
    rows = torch.cat((graph.neighbors[..., None].double(), graph.vectors), -1).round(decimals=9) + 0.0
    return [sorted(map(tuple, row[mask].tolist())) for row, mask in zip(rows, graph.mask, strict=True)]


@st.composite
def random_structures(draw: st.DrawFn) -> Atoms:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_atoms = draw(st.integers(1, 6))
    cell = np.diag(rng.uniform(3.0, 7.0, 3)) + rng.uniform(-1.0, 1.0, (3, 3))
    positions = rng.uniform(-9.0, 9.0, (n_atoms, 3))
    return Atoms(rng.integers(1, 90, n_atoms), positions, cell=cell, pbc=draw(st.tuples(*[st.booleans()] * 3)))


some_structures = st.lists(
    st.sampled_from(sorted(STRUCTURES)).map(STRUCTURES.get) | random_structures(), min_size=1, max_size=4
)


@given(systems=some_structures, seed=st.integers(0, 1000), of_ase=st.booleans())
def test_the_graph_is_that_of_the_neighbour_list_in_any_order(systems: list[Atoms], seed: int, of_ase: bool) -> None:
    given = arguments(systems, of_ase=of_ase)
    order = np.random.default_rng(seed).permutation(len(given["center"]))
    graph = graph_from_edges(**given | {name: given[name][order] for name in EDGE_FIELDS})
    check_laws(graph)
    expected = graph_of(systems)
    assert by_neighbor(graph) == by_neighbor(expected)
    for name in ("numbers", "mask", "system", "volume", "n_per_system", "positions", "cell", "charge"):
        torch.testing.assert_close(getattr(graph, name), getattr(expected, name), rtol=1e-12, atol=0.0, equal_nan=True)
    assert_same(graph, graph_from_edges(**given))


def test_one_structure_needs_neither_system_nor_a_stack_of_cells_and_tensors_serve_as_well() -> None:
    given = arguments([STRUCTURES["bulk"]])
    tensors = {name: torch.tensor(given[name]) for name in ("numbers", "positions", *EDGE_FIELDS)}
    graph = graph_from_edges(**tensors, cell=torch.tensor(given["cell"][0]), dtype=torch.float64)
    assert_same(graph, graph_from_edges(**given))
    assert graph_from_edges(**given | {"pbc": [True, True, False]}).volume.isnan().all()


def changed(**how: Any) -> dict[str, Any]:
    given = arguments([STRUCTURES["bulk"], STRUCTURES["molecule"]])
    return given | {name: change(given[name]) for name, change in how.items()}


def keeping(chosen: Any) -> dict[str, Any]:
    given = changed()
    kept = chosen(given)
    return given | {name: given[name][kept] for name in EDGE_FIELDS}


WRONG = {
    "half list": (
        keeping(lambda g: [(i, *s) < (j, *-s) for i, j, s in zip(*(g[n] for n in EDGE_FIELDS), strict=True)]),
        "edges have no reverse.*this is a half list: ask for a full one",
    ),
    "missing reverse": (keeping(lambda g: np.arange(3, len(g["center"]))), "3 of .* edges have no reverse, the first"),
    "twice": (keeping(lambda g: np.append(np.arange(len(g["center"])), [7, 7])), "more than once; leave out 2 edges"),
    "offset of the other sign": (changed(offset=lambda s: np.abs(s)), "have no reverse"),
    "numbers": (changed(numbers=lambda z: z[:, None]), r"numbers has shape \(\d+, 1\)"),
    "positions": (changed(positions=lambda x: x[:-1]), "positions has shape"),
    "cell": (changed(cell=lambda h: h[:, :2]), "cell has shape"),
    "center": (changed(center=lambda i: i[:-1]), "other has shape"),
    "offset": (changed(offset=lambda s: s[:, :2]), "offset has shape"),
    "system": (changed(system=lambda k: k[:-1]), "system has shape"),
    "index": (changed(other=lambda j: j + 1), "other is between 1 and"),
    "system too large": (changed(system=lambda k: k + 1), "system is between 1 and 2; it has to be between 0 and 1"),
    "unsorted": (changed(system=lambda k: k[::-1].copy()), "system is not sorted"),
    "no atoms of one": (changed(system=lambda k: 0 * k), "one of 2 structures has no atom"),
    "across": (
        changed(system=lambda k: np.arange(len(k)) // 40),
        "edge .* joins atom .* of structure 0 and atom .* of structure 1",
    ),
    "not finite": (changed(positions=lambda x: x * np.nan), "positions: there are values that are not finite"),
    "far offset": (changed(offset=lambda s: s * (1 << 21)), "wrap the atoms"),
    "no atoms": (
        {name: np.zeros(shape) for name, shape in {"numbers": 0, "positions": (0, 3), "cell": (3, 3)}.items()}
        | {"center": [], "other": [], "offset": np.zeros((0, 3))},
        "no atoms were given",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_lists_are_refused(name: str) -> None:
    given, text = WRONG[name]
    with pytest.raises(ValueError, match=text):
        graph_from_edges(**given)


def test_two_atoms_on_one_site_are_named() -> None:
    with pytest.raises(SameSiteError, match="atoms 0 and 1"):
        graph_from_edges([1, 1], np.zeros((2, 3)), np.zeros((3, 3)), [0, 1], [1, 0], np.zeros((2, 3), int))


def test_atoms_without_edges() -> None:
    graph = graph_from_edges([1, 1], np.diag([1.0, 50.0, 0.0])[:2], np.zeros((3, 3)), [], [], np.zeros((0, 3)))
    assert not graph.mask.any()
    check_laws(graph)
