"""The DEQ-Cartesian model: what tensors add."""

from pathlib import Path

import pytest
import torch
from ase import Atoms
from small_models import ELEMENTS, STRUCTURES, cartesian_model

from ase_andersonn.checkpoints.checkpoint import load_model, save_model
from ase_andersonn.config import from_dict, to_dict
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.engine.fused import evaluate_at_once
from ase_andersonn.nn.irreps import dim, split
from ase_andersonn.nn.messages import aggregate
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.deq_cartesian import DEQCartesian, DEQCartesianConfig
from ase_andersonn.potentials.injection_network import InjectionNetwork
from ase_andersonn.structures.graph import Graph, graph_from_atoms

CUTOFF = 4.0


def energy(model: EnergyModel, atoms: Atoms) -> float:
    return float(evaluate(model, graph_from_atoms(atoms, CUTOFF, dtype=torch.float64), tol=1e-24).energy)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_norms_of_an_atoms_bonds_add_up_to_one_at_most(rank: int, seed: int) -> None:
    """Whatever the weights and the geometry; each bond's operator is written out as a matrix."""
    model = cartesian_model(seed, rank, noise=3.0)
    assert isinstance(model, DEQCartesian)
    size = dim(model.shape.n_sent, model.shape.n_tensors, rank)
    eye, places = torch.eye(size, dtype=torch.float64), torch.arange(size)[:, None]
    sums = []
    for name in ("bulk", "skewed", "molecule"):
        graph = graph_from_atoms(STRUCTURES[name](), CUTOFF, dtype=torch.float64)
        gates = model.embed(neighborhoods(model, graph)).gates[0]
        norms = [
            torch.linalg.matrix_norm(aggregate(bond.expand(size, 1, -1), eye, places, model.shape), 2) for bond in gates
        ]
        sums.append(float(torch.stack(norms).sum()))
    assert 0.3 < max(sums) <= 1.0


def neighborhoods(model: InjectionNetwork, graph: Graph) -> Neighborhoods:
    species = model.species(graph.numbers)
    return Neighborhoods(graph.vectors, species, species[graph.neighbors], graph.mask)


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
def test_the_correlation_is_the_number_of_factors(correlation: int) -> None:
    """A product of n densities that are twice as large is 2ⁿ times as large."""
    model = cartesian_model(2, correlation=correlation)
    assert isinstance(model, DEQCartesian)
    graph = graph_from_atoms(STRUCTURES["molecule"](), CUTOFF, dtype=torch.float64)
    density, n = model.environment(neighborhoods(model, graph)).density, model.config.n_products
    scalars, tensors = model.many_body(density)
    _, doubled = model.many_body(2.0 * density)
    factors = torch.tensor([2.0**k for k in range(1, correlation + 1)], dtype=torch.float64).repeat_interleave(n)
    for once, twice in zip(tensors, doubled, strict=True):
        torch.testing.assert_close(twice, factors * once)
    assert scalars.shape == (graph.n_atoms, max(correlation - 1, 1) * n)
    assert [t.shape[1:] for t in tensors] == [(3, correlation * n), (5, correlation * n)]


def test_calibration_gives_features_of_order_one() -> None:
    model = cartesian_model(4)
    assert isinstance(model, DEQCartesian)
    graphs = [graph_from_atoms(make(), CUTOFF, dtype=torch.float64) for make in STRUCTURES.values()]
    model.calibrate(lambda: [(g.vectors, model.species(g.numbers), g.neighbors, g.mask) for g in graphs])
    scalars, lengths, species = [], [], []
    for graph in graphs:
        found, tensors = model.many_body(model.environment(neighborhoods(model, graph)).density)
        species.append(model.species(graph.numbers))
        scalars.append((found - model.product_mean[species[-1]]) / model.product_std[species[-1]])
        lengths.append(torch.stack([t.square().sum(1) for t in tensors], 1) / model.tensor_rms[species[-1]] ** 2)
    silicon = torch.cat(species) == ELEMENTS.index(14)
    assert float(torch.cat(scalars)[silicon].mean(0).abs().max()) < 1e-6
    environment = model.tensor_rms[ELEMENTS.index(14)] > 0.02  # of what is nearly zero no unit is made
    assert bool(environment.any())
    mean = torch.cat(lengths)[silicon].mean(0)[environment]
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=0.1, atol=0)


def test_precision_is_not_lost_on_the_way_through_single_precision() -> None:
    """The tables of the products, unlike the weights, are the same afterwards."""
    model = cartesian_model(3, rank=3)
    assert isinstance(model, DEQCartesian)
    before = [product.product.tables.clone() for product in model.products]
    model.float().double()
    assert all(torch.equal(p.product.tables, table) for p, table in zip(model.products, before, strict=True))


def test_models_are_saved_with_all_that_was_measured(tmp_path: Path) -> None:
    model, atoms = cartesian_model(6), STRUCTURES["bulk"]()
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, DEQCartesian)
    assert energy(loaded.double(), atoms) == energy(model.float().double(), atoms)


def test_at_once_is_the_same_equilibrium() -> None:
    model = cartesian_model(7, contraction=0.3)
    graph = graph_from_atoms(STRUCTURES["molecule"](), CUTOFF, dtype=torch.float64)
    found = evaluate_at_once(model, graph, forces=True, stress=False, tol=1e-6, compile=False)
    expected = evaluate(model, graph, forces=True, tol=1e-24)
    assert found is not None
    assert float(found.energy - expected.energy) == pytest.approx(0.0, abs=1e-6 * graph.n_atoms)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-2)


def test_configs_come_back() -> None:
    config = DEQCartesianConfig(elements=(6, 14), rank=1, n_tensors=4)
    assert from_dict(DEQCartesianConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rank": 4, "l_max": 4}, "rank is 4; it has to be in 1 to 3"),
        ({"rank": 3, "l_max": 2}, "rank is 3; it has to be in 1 to 2"),
        ({"rank": 0}, "rank is 0; .* Without tensors the model is a DEQAttention"),
        ({"correlation": 4}, "correlation is 4; it has to be in 1 to 3"),
        ({"n_tensors": 0}, "n_tensors is 0; it has to be at least 1"),
        ({"n_products": 0}, "n_products is 0"),
        ({"rank": 2, "n_message": 4}, "n_message is 4; .* carried by the tensors"),
        ({"n_heads": 3}, "multiple of n_heads"),
    ],
)
def test_configs_without_a_meaning(changes: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DEQCartesianConfig(elements=(6, 14), **changes)
