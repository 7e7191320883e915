"""The DEQ-Cartesian model: what tensors add, and that without them it is the attention model."""

import pytest
import torch
from ase import Atoms
from small_models import ELEMENTS, STRUCTURES, cartesian_model, small_model

from ase_andersonn.config import from_dict, to_dict
from ase_andersonn.inputs.graph import Graph, graph_from_atoms
from ase_andersonn.models.deq_attention import DEQAttention
from ase_andersonn.models.deq_cartesian import DEQCartesian, DEQCartesianConfig
from ase_andersonn.models.derivatives import evaluate
from ase_andersonn.nn.deq import apply_cell
from ase_andersonn.nn.ranks import split

CUTOFF, GAMMA = 4.0, 0.7


def energy(model: DEQAttention, atoms: Atoms) -> float:
    return float(evaluate(model, graph_from_atoms(atoms, CUTOFF, dtype=torch.float64), tol=1e-24).energy)


def encoded(model: DEQAttention, graph: Graph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    species = model.species(graph.numbers)
    return model.encode(graph.vectors, species, species[graph.neighbors], graph.mask)


def test_rank_0_is_the_attention_model() -> None:
    """The same weights by name and size, and the same energies."""
    cartesian, attention = cartesian_model(5, rank=0), small_model(5)
    attention.load_state_dict(cartesian.state_dict())
    for structure in STRUCTURES.values():
        assert energy(cartesian, structure()) == energy(attention, structure())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_cell_is_a_contraction(rank: int, seed: int) -> None:
    """Whatever the weights and the geometry."""
    model = cartesian_model(seed, rank, noise=2.0, contraction=GAMMA)
    for structure in STRUCTURES.values():
        graph = graph_from_atoms(structure(), CUTOFF, dtype=torch.float64)
        injection = model.encode(*_arguments(model, graph))
        generator = torch.Generator().manual_seed(seed)
        z, y = (torch.randn(injection.u.shape, dtype=torch.float64, generator=generator) for _ in range(2))
        images = [apply_cell(x, injection, graph.neighbors, model.cell_weights()) for x in (z, y)]
        assert (images[0] - images[1]).norm(dim=1).max() <= GAMMA * (z - y).norm(dim=1).max() * (1 + 1e-12)


def _arguments(model: DEQAttention, graph: Graph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    species = model.species(graph.numbers)
    return graph.vectors, species, species[graph.neighbors], graph.mask


def test_vectors_vanish_where_a_centre_of_inversion_forbids_them() -> None:
    """In the middle of a straight chain odd ranks are zero, even ones are not."""
    model = cartesian_model(1, rank=3)
    chain = Atoms("CSiC", positions=[[-1.6, 0.0, 0.0], [0.0, 0.0, 0.0], [1.6, 0.0, 0.0]])
    found = evaluate(model, graph_from_atoms(chain, CUTOFF, dtype=torch.float64), tol=1e-24).equilibrium.z
    _, vectors, tensors, thirds = split(found, model.config.n_channels, 3)
    for middle, end in ((vectors[1], vectors[0]), (thirds[1], thirds[0])):
        assert float(middle.abs().max()) <= 1e-12 < 1e-3 < float(end.abs().max())
    assert float(tensors[1].abs().max()) > 1e-3


@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_products_see_what_densities_of_lower_correlation_cannot(correlation: int) -> None:
    """Of four neighbours at right places the scalars of `A ∘ A` know pairs, those of `(A ∘ A) ∘ A` triples."""
    model = cartesian_model(2, correlation=correlation)
    assert isinstance(model, DEQCartesian)
    graph = graph_from_atoms(STRUCTURES["molecule"](), CUTOFF, dtype=torch.float64)
    scalars, tensors = model.many_body(model.look(*_arguments(model, graph)).density)
    n = model.config.n_products
    assert scalars.shape == (graph.n_atoms, max(correlation - 1, 1) * n)
    assert [t.shape[1:] for t in tensors] == [(3, correlation * n), (5, correlation * n)]
    assert energy(model, STRUCTURES["molecule"]()) != 0.0


def test_calibration_gives_features_of_order_one() -> None:
    model = cartesian_model(4)
    assert isinstance(model, DEQCartesian)
    graphs = [graph_from_atoms(make(), CUTOFF, dtype=torch.float64) for make in STRUCTURES.values()]
    model.calibrate([_arguments(model, graph) for graph in graphs])
    scalars, lengths, species = [], [], []
    for graph in graphs:
        found, tensors = model.many_body(model.look(*_arguments(model, graph)).density)
        species.append(model.species(graph.numbers))
        scalars.append((found - model.typical_products[species[-1]]) / model.spread_products[species[-1]])
        lengths.append(torch.stack([t.square().sum(1) for t in tensors], 1) / model.length[species[-1]] ** 2)
    silicon = torch.cat(species) == ELEMENTS.index(14)
    assert float(torch.cat(scalars)[silicon].mean(0).abs().max()) < 1e-6
    seen = model.length[ELEMENTS.index(14)] > 0.02  # of what is nearly zero no unit is made
    assert bool(seen.any())
    mean = torch.cat(lengths)[silicon].mean(0)[seen]
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=0.1, atol=0)


def test_configs_come_back() -> None:
    config = DEQCartesianConfig(elements=(6, 14), rank=1, n_tensors=4)
    assert from_dict(DEQCartesianConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rank": 4, "l_max": 4}, "rank is 4; it has to be in 0 to 3"),
        ({"rank": 3, "l_max": 2}, "rank is 3; it has to be in 0 to 2"),
        ({"rank": -1}, "rank is -1"),
        ({"correlation": 4}, "correlation is 4; it has to be in 1 to 3"),
        ({"n_tensors": 0}, "n_tensors is 0; it has to be at least 1"),
        ({"n_products": 0}, "n_products is 0"),
        ({"n_heads": 3}, "multiple of n_heads"),
    ],
)
def test_configs_without_a_meaning(changes: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DEQCartesianConfig(elements=(6, 14), **changes)
