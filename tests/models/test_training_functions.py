"""The functions that training compiles: right, and compiled once for batches of all sizes."""

from collections.abc import Callable

import pytest
import torch
from small_models import cartesian_model, ethanol, silicon, small_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ase_andersonn.inputs.graph import graph_from_atoms
from ase_andersonn.models.base import EnergyModel
from ase_andersonn.models.training_functions import Topology, TrainingFunctions, derivative_along

MODELS = [small_model, cartesian_model]


def batches(model: EnergyModel) -> list[tuple[Tensor, Tensor, Topology]]:
    """Edge vectors, a change of them, and neighbours, of batches that differ in atoms and in neighbours of an atom."""
    found = []
    for frames in ([silicon()], [ethanol()], [ethanol(), silicon()]):
        graph = graph_from_atoms(frames, model.cutoff, dtype=torch.float64)
        topology = Topology(model.species(graph.numbers), graph.neighbors, graph.mask, graph.reverse)
        generator = torch.Generator().manual_seed(len(found))
        change = torch.randn(graph.vectors.shape, generator=generator, dtype=torch.float64)
        found.append((graph.vectors, change * graph.mask[..., None], topology))
    return found


@pytest.mark.parametrize("make", MODELS)
def test_derivative_along_a_change_is_the_forward_derivative(make: Callable[[], EnergyModel]) -> None:
    model = make()
    for vectors, change, topology in batches(model):
        args = topology.species, topology.species[topology.neighbors], topology.mask

        def encode(d: Tensor, args: tuple[Tensor, Tensor, Tensor] = args) -> tuple[Tensor, ...]:
            return tuple(model.encode(d, *args))

        expected = torch.func.jvp(encode, (vectors,), (change,))[1]
        torch.testing.assert_close(derivative_along(encode, (vectors,), (change,)), expected)


@pytest.mark.parametrize("make", MODELS)
def test_the_derivative_is_compiled_once_for_all_sizes(make: Callable[[], EnergyModel]) -> None:
    model = make()
    functions, counter = TrainingFunctions(model), CompileCounterWithBackend("aot_eager")
    torch.compiler.reset()
    compiled = torch.compile(functions.encode_tangent, backend=counter, dynamic=True, fullgraph=True)
    for batch in batches(model):
        torch.testing.assert_close(compiled(*batch), functions.encode_tangent(*batch))
    assert counter.frame_count == 1
