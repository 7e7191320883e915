"""The padded neighbour matrix, its batches, and samples collated to it."""

import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from input_structures import STRUCTURES
from torch.utils.data import DataLoader

from ase_andersonn.properties import Field, check_shapes
from ase_andersonn.structures import (
    Graph,
    NeighborList,
    Sample,
    bucket,
    collate,
    find_edges,
    graph_from_atoms,
    make_sample,
    pad_edges,
)
from ase_andersonn.structures.neighbors import neighbor_edges

CUTOFF = 4.2
SHAPES: dict[str, tuple[int | str, ...]] = {
    "numbers": ("n_atoms",),
    "vectors": ("n_atoms", "n_neighbors", 3),
    "neighbors": ("n_atoms", "n_neighbors"),
    "mask": ("n_atoms", "n_neighbors"),
    "reverse": ("n_atoms", "n_neighbors"),
    "system": ("n_atoms",),
    "volume": ("n_systems",),
    "n_per_system": ("n_systems",),
    "positions": ("n_atoms", 3),
    "cell": ("n_systems", 3, 3),
    "charge": ("n_systems",),
}
GRAPH = [Field(name, shape, "", "") for name, shape in SHAPES.items()]
TENSORS = [entry.name for entry in fields(Graph) if entry.name != "n_systems"]


def graph_of(atoms: Atoms | list[Atoms], dtype: torch.dtype = torch.float64) -> Graph:
    return graph_from_atoms(atoms, CUTOFF, dtype=dtype)


def check_laws(graph: Graph) -> None:
    """Padding is inert, reverse an involution that turns vectors round, every edge inside its own structure."""
    n_atoms, n_neighbors = graph.mask.shape
    check_shapes({name: getattr(graph, name) for name in TENSORS}, GRAPH)
    assert (graph.n_atoms, graph.n_neighbors) == (n_atoms, n_neighbors)
    assert n_neighbors == bucket(int(graph.mask.sum(1).max()))
    slots = torch.arange(n_atoms * n_neighbors).view(n_atoms, n_neighbors)
    own = torch.arange(n_atoms)[:, None].expand_as(slots)
    assert (graph.vectors[~graph.mask] == 0.0).all()
    assert torch.equal(graph.neighbors[~graph.mask], own[~graph.mask])
    assert torch.equal(graph.reverse[~graph.mask], slots[~graph.mask])
    assert torch.equal(graph.reverse.flatten()[graph.reverse], slots)
    assert torch.equal(graph.vectors.flatten(0, 1)[graph.reverse], -graph.vectors)
    assert torch.equal(graph.neighbors.flatten()[graph.reverse], own)
    assert torch.equal(graph.mask.flatten()[graph.reverse], graph.mask)
    assert torch.equal(graph.system[graph.neighbors], graph.system[:, None].expand_as(slots))
    assert (graph.system.diff() >= 0).all()
    assert torch.equal(torch.bincount(graph.system, minlength=graph.n_systems), graph.n_per_system)


def concatenated(graphs: list[Graph]) -> Graph:
    """What a batch has to be, written out one structure at a time."""
    n_neighbors = max(graph.n_neighbors for graph in graphs)
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in TENSORS}
    first = 0
    for k, graph in enumerate(graphs):
        wider = (0, n_neighbors - graph.n_neighbors)
        own = torch.arange(graph.n_atoms)[:, None]
        column = torch.arange(n_neighbors)
        row_of, column_of = graph.reverse // graph.n_neighbors, graph.reverse % graph.n_neighbors
        mask = torch.nn.functional.pad(graph.mask, wider)
        reverse = torch.nn.functional.pad(row_of * n_neighbors + column_of, wider)
        parts["numbers"].append(graph.numbers)
        parts["vectors"].append(torch.nn.functional.pad(graph.vectors, (0, 0, *wider)))
        parts["mask"].append(mask)
        parts["neighbors"].append(torch.where(mask, torch.nn.functional.pad(graph.neighbors, wider), own) + first)
        parts["reverse"].append(torch.where(mask, reverse, own * n_neighbors + column) + first * n_neighbors)
        parts["system"].append(graph.system + k)
        parts["volume"].append(graph.volume)
        for name in ("n_per_system", "positions", "cell", "charge"):
            parts[name].append(getattr(graph, name))
        first += graph.n_atoms
    return Graph(n_systems=len(graphs), **{name: torch.cat(values) for name, values in parts.items()})


def assert_same(a: Graph, b: Graph, *, tol: float = 0.0) -> None:
    assert a.n_systems == b.n_systems
    for name in TENSORS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=tol, atol=tol, equal_nan=True)


@pytest.mark.parametrize("name", STRUCTURES)
def test_laws(name: str) -> None:
    atoms = STRUCTURES[name]
    graph = graph_of(atoms)
    check_laws(graph)
    edges = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
    np.testing.assert_array_equal(graph.vectors[graph.mask], edges.vectors)
    np.testing.assert_array_equal(graph.neighbors[graph.mask], edges.other)
    np.testing.assert_array_equal(graph.mask.sum(1), np.bincount(edges.center, minlength=len(atoms)))
    np.testing.assert_array_equal(graph.numbers, atoms.numbers)
    expected = atoms.get_volume() if atoms.pbc.all() else np.nan
    np.testing.assert_allclose(graph.volume, [expected])


def test_positions_cells_and_charges_are_those_of_the_structures() -> None:
    systems = [STRUCTURES["skewed"].copy(), STRUCTURES["molecule"].copy()]
    systems[1].info["charge"] = -1
    for graph in (graph_of(systems), collate([sample(system) for system in systems], dtype=torch.float64).graph):
        assert graph.positions is not None
        assert graph.cell is not None
        assert graph.charge is not None
        np.testing.assert_array_equal(graph.positions, np.concatenate([system.positions for system in systems]))
        np.testing.assert_array_equal(graph.cell, np.stack([system.cell.array for system in systems]))
        assert graph.charge.tolist() == [0.0, -1.0]
        periodic = graph.vectors + graph.positions[:, None] - graph.positions[graph.neighbors]
        whole = torch.linalg.solve(graph.cell[0], periodic[: len(systems[0])], left=False)
        torch.testing.assert_close(whole, whole.round(), rtol=0.0, atol=1e-9)
    before = graph_of(systems[0])
    systems[0].positions += 1.0
    assert before.positions is not None
    assert float(before.positions[0, 0]) != systems[0].positions[0, 0]
    kinds = {name: getattr(before.to(dtype=torch.float32), name).dtype for name in TENSORS}
    assert {kinds[name] for name in ("vectors", "volume", "positions", "cell", "charge")} == {torch.float32}
    assert {kinds[name] for name in ("numbers", "neighbors", "reverse", "system")} == {torch.int64}


some_structures = st.lists(st.sampled_from(sorted(STRUCTURES)), min_size=1, max_size=5)


@given(names=some_structures)
def test_a_batch_is_the_graphs_of_its_structures(names: list[str]) -> None:
    systems = [STRUCTURES[name] for name in names]
    graph = graph_of(systems)
    check_laws(graph)
    assert_same(graph, concatenated([graph_of(system) for system in systems]))


def sample(atoms: Atoms, **fields: torch.Tensor) -> Sample:
    return make_sample(atoms, find_edges(atoms, CUTOFF), **fields)


@given(names=some_structures)
def test_collated_samples_give_the_same_graph(names: list[str]) -> None:
    systems = [STRUCTURES[name] for name in names]
    graph = collate([sample(system) for system in systems], dtype=torch.float64).graph
    check_laws(graph)
    assert_same(graph, graph_of(systems), tol=1e-12)


def test_further_fields_are_concatenated_and_keep_their_precision() -> None:
    parts = [
        sample(
            STRUCTURES[name], charges=torch.full((len(STRUCTURES[name]), 2), k), dipole=torch.ones(1, 3).double() * k
        )
        for k, name in enumerate(("bulk", "molecule"))
    ]
    fields = collate(parts).fields
    assert set(fields) == {"charges", "dipole"}
    assert fields["charges"].tolist() == [[0, 0]] * len(STRUCTURES["bulk"]) + [[1, 1]] * len(STRUCTURES["molecule"])
    assert fields["dipole"].tolist() == [[0.0] * 3, [1.0] * 3]
    assert fields["dipole"].dtype == torch.float64


def test_samples_pass_through_loaders_with_workers_and_pickle() -> None:
    samples = [sample(STRUCTURES[name]) for name in ("bulk", "molecule", "skewed")]
    loader = DataLoader(samples, batch_size=3, num_workers=1, multiprocessing_context="fork", collate_fn=collate)  # type: ignore[arg-type]
    again = collate(pickle.loads(pickle.dumps(samples)))
    for batch in loader:
        assert_same(batch.graph, again.graph)


def test_a_neighbour_list_gives_the_same_graph() -> None:
    rng, atoms, kept = np.random.default_rng(0), STRUCTURES["bulk"].copy(), NeighborList(CUTOFF, 0.5)
    for step in (0.0, 0.001, 0.02, 0.02, 0.3, 0.001):
        atoms.positions += rng.normal(size=atoms.positions.shape) * step
        atoms.wrap()
        graph = graph_from_atoms(atoms, CUTOFF, dtype=torch.float64, neighbor_list=kept)
        check_laws(graph)
        fresh = graph_of(atoms)
        assert torch.equal(graph.mask.sum(1), fresh.mask.sum(1))
        order, order_fresh = (by_length(g) for g in (graph, fresh))
        torch.testing.assert_close(order, order_fresh, rtol=0.0, atol=1e-12)
    assert kept.updates == 6
    assert kept.rebuilds == 2


def by_length(graph: Graph) -> torch.Tensor:
    return graph.vectors.norm(dim=2).sort(dim=1).values


def test_graphs_share_their_indices_until_an_edge_crosses_the_cutoff() -> None:
    atoms, kept = STRUCTURES["crystal"].copy(), NeighborList(CUTOFF)
    first = graph_from_atoms(atoms, CUTOFF, neighbor_list=kept)
    atoms.positions[0] += 0.01
    second = graph_from_atoms(atoms, CUTOFF, neighbor_list=kept)
    assert second.neighbors is first.neighbors
    assert not torch.equal(second.vectors, first.vectors)
    check_laws(second)


@pytest.mark.parametrize(("n", "padded"), [(0, 8), (1, 8), (8, 8), (9, 16), (16, 16), (45, 48)])
def test_bucket(n: int, padded: int) -> None:
    assert bucket(n) == padded


def test_padding_of_no_edges_and_of_no_atoms() -> None:
    none, no_vectors = torch.empty(0, dtype=torch.int64), torch.empty(0, 3)
    vectors, neighbors, mask, reverse = pad_edges(none, none, none, no_vectors, 2)
    assert vectors.shape == (2, 8, 3)
    assert not mask.any()
    assert neighbors.tolist() == [[0] * 8, [1] * 8]
    assert reverse.tolist() == [list(range(8)), list(range(8, 16))]
    assert pad_edges(none, none, none, no_vectors, 0)[0].shape == (0, 8, 3)


def test_precision_is_rounded_once() -> None:
    """Far from the origin float32 positions would lose the vectors."""
    atoms = STRUCTURES["bulk"].copy()
    atoms.positions += 1e6
    graph, exact = graph_of(atoms, torch.float32), graph_of(atoms)
    assert graph.vectors.dtype == graph.volume.dtype == torch.float32
    assert torch.equal(graph.vectors, exact.vectors.float())
    assert_same(exact.to(dtype=torch.float32), graph)
    assert exact.to("cpu").vectors.dtype == torch.float64


def test_requests_that_make_no_graph() -> None:
    with pytest.raises(ValueError, match="no structures were given"):
        graph_of([])
    with pytest.raises(ValueError, match="follows one structure; 2 were given"):
        graph_from_atoms([bulk("Cu")] * 2, CUTOFF, neighbor_list=NeighborList(CUTOFF))
    with pytest.raises(ValueError, match=r"made for 3\.0 Å, the graph needs 4\.2 Å"):
        graph_from_atoms(bulk("Cu"), CUTOFF, neighbor_list=NeighborList(3.0))
