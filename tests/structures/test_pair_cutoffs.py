"""A cutoff for each pair of elements: the edges are those of one cutoff, less what is longer than its pair's."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from input_structures import STRUCTURES

from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.structures.graph import graph_from_atoms
from ase_andersonn.structures.neighbor_list import NeighborList
from ase_andersonn.structures.neighbors import Edges, PairCutoffs, edges_of, neighbor_edges

RNG = np.random.default_rng(0)
TABLE = RNG.uniform(1.5, 4.5, (119, 119))
CUTOFFS = PairCutoffs(np.maximum(TABLE, TABLE.T))


def edge_set(edges: Edges) -> set[tuple[int, ...]]:
    return set(zip(edges.center.tolist(), edges.other.tolist(), *edges.offset.T.tolist(), strict=True))


def filtered(atoms: Atoms) -> set[tuple[int, ...]]:
    """From the edges of the largest cutoff of all."""
    edges = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, float(CUTOFFS.table.max()))
    z, r = atoms.numbers, np.linalg.norm(edges.vectors, axis=1)
    inside = r < CUTOFFS.table[z[edges.center], z[edges.other]]
    return {edge for edge, keep in zip(sorted_edges(edges), inside, strict=True) if keep}


def sorted_edges(edges: Edges) -> list[tuple[int, ...]]:
    return list(zip(edges.center.tolist(), edges.other.tolist(), *edges.offset.T.tolist(), strict=True))


def colored(name: str, seed: int) -> Atoms:
    atoms = STRUCTURES[name].copy()
    atoms.numbers = np.random.default_rng(seed).choice([1, 8, 29, 55], len(atoms))
    return atoms


@given(name=st.sampled_from(sorted(STRUCTURES)), seed=st.integers(0, 2**16))
def test_edges_are_those_within_the_cutoff_of_their_pair(name: str, seed: int) -> None:
    atoms = colored(name, seed)
    edges = edges_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, CUTOFFS)
    assert edge_set(edges) == filtered(atoms)
    assert np.array_equal(edges.reverse[edges.reverse], np.arange(len(edges)))
    assert np.array_equal(edges.center[edges.reverse], edges.other)
    np.testing.assert_allclose(edges.vectors[edges.reverse], -edges.vectors, atol=1e-12)


@given(
    name=st.sampled_from(sorted(STRUCTURES)),
    seed=st.integers(0, 2**16),
    step=st.sampled_from([0.01, 0.05, 0.3]),
    strain=st.sampled_from([-0.04, -0.01, 0.01, 0.04]),
    skin=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_the_kept_list_finds_them_along_a_trajectory(
    name: str, seed: int, step: float, strain: float, skin: float
) -> None:
    rng, kept, atoms = np.random.default_rng(seed), NeighborList(CUTOFFS, skin), colored(name, seed)
    for k in range(6):
        edges = kept.update(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        fresh = edges_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, CUTOFFS)
        assert len(edges) == len(fresh)
        order = [np.lexsort(e.vectors.round(6).T) for e in (edges, fresh)]
        np.testing.assert_allclose(edges.vectors[order[0]], fresh.vectors[order[1]], atol=1e-5)
        atoms.positions += rng.normal(size=(len(atoms), 3)) * step
        if k % 2:
            atoms.set_cell(atoms.cell.array * (1.0 + strain), scale_atoms=True)


def test_only_elements_at_hand_decide_how_far_neighbours_are_sought() -> None:
    table = np.full((119, 119), 3.0)
    table[55, 55] = 1e3  # would have more images than fit in memory
    atoms = bulk("Cu", cubic=True)
    edges = edges_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, PairCutoffs(table))
    assert len(edges) == 4 * 12


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_longer_edges_add_nothing_to_a_model(seed: int) -> None:
    """Energy and forces are those of the graph that holds all edges up to the largest cutoff."""
    torch.manual_seed(seed)
    config = DEQAttentionConfig(
        elements=(3, 14, 55), cutoff=6.0, cutoff_offset=2.5, message_limit=3.0, n_channels=8, n_edge=8, n_token=8,
        n_heads=2, n_hidden=16, n_message=4, n_bispectrum=2,
    )  # fmt: skip
    model = DEQAttention(config).double()
    atoms = bulk("Si", cubic=True) * (2, 1, 1)
    atoms.numbers = np.random.default_rng(seed).choice(config.elements, len(atoms))
    atoms.set_cell(atoms.cell * 1.2, scale_atoms=True)
    atoms.rattle(0.2, seed=seed)
    graphs = [graph_from_atoms(atoms, cutoff, dtype=torch.float64) for cutoff in (6.0, model.edge_cutoff)]
    assert graphs[1].mask.sum() < 0.9 * graphs[0].mask.sum()
    first, second = (evaluate(model, graph, forces=True, stress=True, tol=1e-14) for graph in graphs)
    torch.testing.assert_close(first.energy, second.energy, rtol=0, atol=1e-10)
    torch.testing.assert_close(first.forces, second.forces, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "wrong", [{"cutoff_offset": 0.0}, {"cutoff_offset": -1.0}, {"message_limit": 0.0}, {"message_limit": float("nan")}]
)
def test_wrong_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DEQAttentionConfig(elements=(14,), **wrong)  # type: ignore[arg-type]
