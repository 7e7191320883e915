"""The encoding whose derivatives are compiled: the same as that of back-propagation, compiled once for all sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import cartesian_model, ethanol, message_model, silicon, small_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental import _config as shapes

from ase_andersonn.backends import CompileMode
from ase_andersonn.engine.encoding_gradients import CompiledEncoding, Edges, EncodingGradients
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.engine.functions import Functions
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import Graph, graph_from_atoms

MAKE = {
    "attention": lambda: small_model().requires_grad_(),
    "message": lambda: message_model().requires_grad_(),
    "tensors": lambda: cartesian_model(3, 2).requires_grad_(),
}
MODELS = [pytest.param(make, id=name) for name, make in MAKE.items()]


class AsItIs:
    """What a compiler would make of a function, if it left it as it is."""

    backend = "as it is"

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def graphs(model: EnergyModel) -> list[Graph]:
    frames = ([silicon()], [ethanol()], [ethanol(), silicon()])
    return [graph_from_atoms(atoms, model.cutoff, dtype=torch.float64) for atoms in frames]


def loss_gradients(
    model: EnergyModel, encode: Callable[..., tuple[Tensor, ...]], graph: Graph
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The encoding's gradient in the edge vectors, and that of a loss of both in the weights."""
    model.zero_grad()
    vectors = graph.vectors.detach().requires_grad_()
    encoded = encode(vectors, model.species(graph.numbers), graph.neighbors, graph.mask)
    factor = torch.linspace(0.5, 1.5, len(vectors), dtype=torch.float64)
    cotangents = [factor.view(-1, *[1] * (x.ndim - 1)) * x.cos() for x in encoded]
    (pulled,) = torch.autograd.grad(encoded, vectors, cotangents, create_graph=True)
    (sum(x.square().sum() for x in encoded) + pulled.square().sum()).backward()  # type: ignore[union-attr]
    return pulled.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("make", MODELS)
def test_gradients_are_those_of_back_propagation(make: Callable[[], EnergyModel]) -> None:
    model = make()
    for graph in graphs(model):
        pulled, gradients = loss_gradients(model, CompiledEncoding(model, lambda function: function), graph)
        expected, expected_gradients = loss_gradients(model, Functions(model).encode, graph)
        torch.testing.assert_close(pulled, expected, rtol=1e-10, atol=1e-12)
        for name, gradient in expected_gradients.items():
            ours = gradients[name]
            assert ours is not None
            torch.testing.assert_close(ours, torch.zeros_like(ours) if gradient is None else gradient)


def test_weights_that_are_not_learnt_have_no_gradient() -> None:
    model = MAKE["message"]()
    frozen, *_ = model.parameters()
    frozen.requires_grad_(False)
    _, gradients = loss_gradients(model, CompiledEncoding(model, lambda function: function), graphs(model)[0])
    assert [name for name, p in model.named_parameters() if p is frozen] == [
        n for n, g in gradients.items() if g is None
    ]


@pytest.mark.parametrize("make", MODELS)
def test_training_with_them_has_the_same_gradients(
    make: Callable[[], EnergyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    graph = graphs(model)[-1]

    def gradients(mode: CompileMode) -> dict[str, Tensor]:
        model.zero_grad()
        found = evaluate(model, graph, forces=True, tol=1e-20, compile=mode)
        assert found.forces is not None
        (found.energy.sum() + found.forces.square().sum()).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients(False)
    called = []

    def as_it_is(function: Any, **_: Any) -> Any:
        def call(*args: Any) -> Any:
            called.append(function.__name__)
            return function(*args)

        return AsItIs(call)

    monkeypatch.setattr("ase_andersonn.engine.compiled.compile_function", as_it_is)
    found = gradients("auto")
    assert {"pull", "gradient", "second"} <= set(called)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_the_second_derivatives_are_compiled_once_for_all_sizes() -> None:
    torch.compiler.reset()
    model: Any = small_model(l_max=1, n_bispectrum=0)
    functions = EncodingGradients(model)
    counter = CompileCounterWithBackend("aot_eager")
    weights = {name: p.detach() for name, p in model.named_parameters()}
    with shapes.patch(use_duck_shape=False), torch.no_grad():  # takes no size for another that is the same by chance
        second = torch.compile(functions.second, backend=counter, dynamic=True, fullgraph=True)
        for graph in graphs(model)[:2]:
            edges = Edges(graph.vectors, model.species(graph.numbers), graph.neighbors, graph.mask)
            args = weights, tuple(x.cos() for x in Functions(model).encode(*edges)), graph.vectors.sin(), edges
            torch.testing.assert_close(second(*args), functions.second(*args))
    assert counter.frame_count == 1
