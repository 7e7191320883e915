"""The encoding and its derivatives: block by block, kept or computed again, by neighbours or by scattered additions."""

from collections.abc import Callable

import pytest
import torch
from small_models import STRUCTURES, message_model, small_model

from ase_andersonn.engine import encoding as encoder_module
from ase_andersonn.engine.encoding import Encoder
from ase_andersonn.engine.functions import Functions, message_vjp
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import EnergyModel, gathered
from ase_andersonn.structures.graph import graph_from_atoms


def found(model: EnergyModel, block: int, keep: bool) -> list[torch.Tensor]:
    """Injection, pair energies, and the derivative of a random sum of them."""
    graph = graph_from_atoms([STRUCTURES[name]() for name in ("bulk", "molecule")], 4.0, dtype=torch.float64)
    encoder = Encoder(Functions(model), lambda function: function)
    encoder.block = block
    with torch.no_grad():
        species = model.species(graph.numbers)
        encoding = encoder.encode(graph, species, keep=keep)
        outputs = [*encoding.injection, encoding.pair]
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in outputs]

        u, v, gates, pairs = weights
        pulled = encoder.pull(graph, species, encoding, lambda b: (u[b], v[b]), lambda b: (gates[b], pairs[b]))
    vectors = graph.vectors.clone().requires_grad_()
    injection = model.encode(vectors, species, graph.neighbors, graph.mask)
    pair = model.pair_energies(Neighborhoods(vectors, species, species[graph.neighbors], graph.mask))
    for given, expected in zip(outputs, (*injection, pair), strict=True):
        torch.testing.assert_close(given, expected.detach(), rtol=1e-13, atol=1e-13)
    (expected,) = torch.autograd.grad((*injection, pair), vectors, weights)
    torch.testing.assert_close(pulled, expected, rtol=1e-11, atol=1e-12)
    return [*outputs, pulled]


@pytest.mark.parametrize("make", [small_model, message_model])
def test_blocks_and_what_is_kept_change_nothing(
    make: Callable[[], EnergyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    reference = found(model, 1000, True)
    for block, keep in ((5, True), (5, False), (1000, False)):
        for given, expected in zip(found(model, block, keep), reference, strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-13)
    monkeypatch.setattr(encoder_module, "KEPT_ATOMS", 3)
    for given, expected in zip(found(model, 5, True), reference, strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-13)


def test_the_cotangent_of_what_is_told_is_a_sum_over_neighbours() -> None:
    graph = graph_from_atoms([STRUCTURES[name]() for name in STRUCTURES], 4.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    message = torch.randn(graph.n_atoms, 3, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(*graph.neighbors.shape, 3, dtype=torch.float64, generator=generator)
    weight = weight * graph.mask[..., None]
    (expected,) = torch.autograd.grad((gathered(message, graph.neighbors) * weight).sum(), message)
    torch.testing.assert_close(message_vjp(weight, graph.reverse), expected)
