"""The functions that training compiles: right, and compiled once for batches of all sizes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_models import ethanol, silicon, small_model
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental import _config as shapes

from ase_andersonn.engine.training_functions import Solved, Topology, TrainingFunctions, derivative_along
from ase_andersonn.nn.equilibrium_cell import Injection
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import graph_from_atoms


def batches(model: EnergyModel) -> list[tuple[Injection, Topology, Solved]]:
    """A change of the injection, neighbours, and a solution, of batches of different sizes."""
    found = []
    for frames in ([silicon()], [ethanol()], [ethanol(), silicon()]):
        graph = graph_from_atoms(frames, model.cutoff, dtype=torch.float64)
        species = model.species(graph.numbers)
        with torch.no_grad():
            injection = model.encode(graph.vectors, species, graph.neighbors, graph.mask)
            weights = model.cell_weights()
            _, slope = weights.linearize(injection.u, injection, graph.neighbors)
        generator = torch.Generator().manual_seed(len(found))
        u, v, gates = (torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in injection)
        change = Injection(u, v, gates * injection.gates)
        topology = Topology(species, graph.neighbors, graph.reverse)
        found.append((change, topology, Solved(injection.u, injection.v, slope, injection, weights)))
    return found


def test_derivative_along_a_change_is_the_forward_derivative() -> None:
    x, y, t, s = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind(0)

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (2.0 * x * y + 1.0).sin().sum(-1) + (x / (1.0 + y.square())).clamp(min=0.0).sum(-1)

    expected = torch.func.jvp(function, (x, y), (t, s))[1]
    torch.testing.assert_close(derivative_along(function, (x, y), (t, s)), expected)


@pytest.fixture
def counter() -> Iterator[CompileCounterWithBackend]:
    """A compiler that counts, and takes no size for another that is the same by chance."""
    torch.compiler.reset()
    with shapes.patch(use_duck_shape=False):
        yield CompileCounterWithBackend("aot_eager")


def test_tangents_are_compiled_once_for_all_sizes(counter: CompileCounterWithBackend) -> None:
    model: Any = small_model()
    functions = TrainingFunctions(model)
    compiled = torch.compile(functions.tangents, backend=counter, dynamic=True, fullgraph=True)
    with torch.no_grad():
        for batch in batches(model):
            torch.testing.assert_close(compiled(*batch, (2, 2)), functions.tangents(*batch, (2, 2)))
    assert counter.frame_count == 1


def test_weight_gradients_are_compiled_once_for_all_sizes(counter: CompileCounterWithBackend) -> None:
    model: Any = small_model()
    functions = TrainingFunctions(model)
    compiled = torch.compile(functions.weight_gradient, backend=counter, dynamic=True, fullgraph=True)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        for change, topology, solved in batches(model):
            z, adjoint = solved.z, solved.adjoint
            args = (parameters, solved.injection, (z, adjoint), (*change, adjoint, z), z[:, 0], topology)
            torch.testing.assert_close(compiled(*args), functions.weight_gradient(*args))
    assert counter.frame_count == 1
