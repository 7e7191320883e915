"""Edges found on the device.

Most of it is tested without one: nvalchemi-toolkit-ops runs on the CPU as well, and where it is not installed a
stand-in with its interface takes its place.
"""

import sys
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import vesin
from input_structures import STRUCTURES, edge_set

from ase_andersonn.structures import NeighborList, graph, graph_from_atoms, neighbor_edges
from ase_andersonn.structures import neighbors_cuda as neighbors_gpu

CPU = torch.device("cpu")


def neighbor_matrix(positions: torch.Tensor, cutoff: float, **options: Any) -> tuple[torch.Tensor, ...]:
    """Stand-in for nvalchemiops' `neighbor_list`: half of the pairs as a matrix with rows of limited length."""
    assert options["half_fill"]
    assert options["batch_idx"].dtype == options["batch_ptr"].dtype == torch.int32
    width, starts = options.get("max_neighbors", 4), options["batch_ptr"].tolist()
    neighbors = torch.full((len(positions), width), len(positions), dtype=torch.int32)
    shifts = torch.zeros(len(positions), width, 3, dtype=torch.int32)
    count = torch.zeros(len(positions), dtype=torch.int32)
    for k, (start, stop) in enumerate(pairwise(starts)):
        finder = vesin.NeighborList(cutoff=cutoff, full_list=False)
        x, cell, pbc = positions[start:stop].numpy(), options["cell"][k].numpy(), options["pbc"][k].tolist()
        assert abs(np.linalg.det(cell)) > 0.0
        for i, j, shift in zip(*finder.compute(x, cell, pbc, "ijS"), strict=True):
            row = start + int(i)
            if count[row] < width:
                neighbors[row, count[row]] = start + int(j)
                shifts[row, count[row]] = torch.from_numpy(shift)
            count[row] += 1
    return neighbors, count, shifts


@pytest.fixture(params=["stand-in", "nvalchemiops"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "nvalchemiops":
        pytest.importorskip("nvalchemiops.torch.neighbors")
        return
    module = ModuleType("nvalchemiops.torch.neighbors")
    module.neighbor_list = neighbor_matrix  # type: ignore[attr-defined]
    for name in ("nvalchemiops", "nvalchemiops.torch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("cutoff", [2.9, 5.2])
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_same_edges_as_vesin(name: str, cutoff: float) -> None:
    atoms = STRUCTURES[name]
    found = neighbors_gpu.device_edges([atoms], cutoff, CPU)
    expected = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    assert (found.center.diff() >= 0).all()
    assert torch.equal(found.reverse[found.reverse], torch.arange(len(found.center)))
    assert torch.equal(found.center[found.reverse], found.other)
    assert torch.equal(found.vectors[found.reverse], -found.vectors)
    rounded, rounded_expected = (
        edge_set(e.center, e.other, np.rint(np.asarray(e.vectors) * 1e6)) for e in (found, expected)
    )
    np.testing.assert_allclose(rounded, rounded_expected, atol=1)


@pytest.mark.usefixtures("library")
def test_a_batch_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is the same whoever finds the edges; a neighbour list counts the search."""
    systems = list(STRUCTURES.values())
    kept = NeighborList(4.0)
    expected, single = (graph_from_atoms(s, 4.0, dtype=torch.float64) for s in (systems, systems[0]))
    monkeypatch.setattr(graph, "finds_edges_on", lambda device: True)
    found = graph_from_atoms(systems, 4.0, dtype=torch.float64)
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.system, expected.system)
    lengths, lengths_expected = (g.vectors.norm(dim=2).sort(1).values for g in (found, expected))
    torch.testing.assert_close(lengths, lengths_expected)
    assert torch.equal(graph_from_atoms(systems[0], 4.0, neighbor_list=kept).mask, single.mask)
    assert (kept.updates, kept.rebuilds) == (1, 1)


@pytest.mark.usefixtures("library")
def test_two_atoms_on_one_site(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = STRUCTURES["bulk"].copy()
    atoms.positions[5] = atoms.positions[2]
    monkeypatch.setattr(graph, "finds_edges_on", lambda device: True)
    with pytest.raises(ValueError, match="structure 1 of 2: atoms 2 and 5"):
        graph_from_atoms([STRUCTURES["skewed"], atoms], 4.0)


def test_only_cuda_devices_find_their_own_edges() -> None:
    assert not neighbors_gpu.finds_edges_on(CPU)
    assert neighbors_gpu.finds_edges_on(torch.device("cuda")) == (find_spec("nvalchemiops") is not None)


@pytest.mark.gpu
@pytest.mark.parametrize("name", STRUCTURES)
def test_graph_on_a_cuda_device(name: str) -> None:
    atoms = STRUCTURES[name]
    expected = graph_from_atoms(atoms, 4.0, dtype=torch.float64)
    found = graph_from_atoms(atoms, 4.0, dtype=torch.float64, device="cuda")
    assert found.vectors.is_cuda
    found = found.to("cpu")
    assert torch.equal(found.mask, expected.mask)
    lengths, lengths_expected = (g.vectors.norm(dim=2).sort(1).values for g in (found, expected))
    torch.testing.assert_close(lengths, lengths_expected)
    assert torch.equal(found.vectors.flatten(0, 1)[found.reverse], -found.vectors)
