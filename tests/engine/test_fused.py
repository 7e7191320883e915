"""Small structures in one function: within the tolerance of what is solved for, or nothing."""

from collections.abc import Callable

import pytest
import torch
from small_models import STRUCTURES, message_model, small_model, stiff_model
from torch.utils._pytree import tree_leaves

from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.engine.functions import Functions
from ase_andersonn.engine.fused import evaluate_at_once
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import Graph, graph_from_atoms


def graph_of(name: str) -> Graph:
    return graph_from_atoms(STRUCTURES[name](), 4.0, dtype=torch.float64)


@pytest.mark.parametrize("make", [small_model, message_model])
@pytest.mark.parametrize("name", STRUCTURES)
def test_fused_within_the_tolerance_of_the_solved(name: str, make: Callable[[], EnergyModel]) -> None:
    model, graph, tol = make(), graph_of(name), 1e-5
    given = evaluate_at_once(model, graph, forces=True, stress=True, tol=tol, compile=False)
    exact = evaluate(model, graph, forces=True, stress=True, tol=1e-24)
    assert given is not None
    assert given.forces is not None
    assert exact.forces is not None
    assert abs(float(given.energy - exact.energy)) <= tol * graph.n_atoms
    torch.testing.assert_close(given.forces, exact.forces, rtol=0, atol=10 * tol)
    torch.testing.assert_close(given.stress, exact.stress, rtol=0, atol=10 * tol, equal_nan=True)
    torch.testing.assert_close(given.energies.sum()[None], given.energy)
    assert given.equilibrium.evaluations == (9, 7)
    energy = evaluate_at_once(model, graph, forces=False, stress=False, tol=tol, compile=False)
    assert energy is not None
    assert energy.forces is None
    assert energy.stress is None
    assert torch.equal(energy.energy, given.energy)


def test_fused_returns_none_above_the_tolerance() -> None:
    graph = graph_of("bulk")
    for model, tol in ((small_model(), 1e-16), (stiff_model(), 1e-6)):
        assert evaluate_at_once(model, graph, forces=True, stress=False, tol=tol, compile=False) is None


@pytest.mark.parametrize("make", [small_model, message_model])
def test_it_is_one_piece_for_a_compiler(make: Callable[[], EnergyModel]) -> None:
    """No part of it is left to Python, and traced it says the same."""
    torch.compiler.reset()
    model, graph = make(), graph_of("molecule")
    functions = Functions(model)
    compiled = torch.compile(functions.fused, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        geometry = graph.vectors, model.species(graph.numbers), graph.neighbors, graph.mask, graph.reverse
        args = (*geometry, model.cell_weights(), (3, 2), 0.0, True)
        for given, expected in zip(tree_leaves(compiled(*args)), tree_leaves(functions.fused(*args)), strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
