"""The DEQ-attention model: a contraction in every geometry, species apart, configs that make sense."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ELEMENTS, message_model, small_model, stiff_model

from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.config import from_dict, to_dict
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.nn.equilibrium_cell import reverse_gates
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.base import EnergyModel, gathered
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.pretrained.catalog import model_files, packaged_models, read_header
from ase_andersonn.structures.graph import Graph, graph_from_atoms

CUTOFF, GAMMA = 4.0, 0.9


def random_graph(seed: int, n_atoms: int, density: float) -> Graph:
    """Atoms thrown into a skewed box, at any distance from each other."""
    rng = np.random.default_rng(seed)
    cell = (n_atoms / density) ** (1 / 3) * (np.eye(3) + 0.3 * rng.uniform(-1, 1, (3, 3)))
    numbers = rng.choice(ELEMENTS, n_atoms)
    atoms = Atoms(numbers, scaled_positions=rng.uniform(size=(n_atoms, 3)), cell=cell, pbc=rng.integers(0, 2, 3))
    return graph_from_atoms(atoms, CUTOFF, dtype=torch.float64)


def norm(z: torch.Tensor) -> float:
    """`max_i |z_i|₂`."""
    return float(z.norm(dim=-1).max())


graphs = st.builds(random_graph, st.integers(0, 2**31), st.integers(1, 12), st.floats(1e-3, 0.5))
models = st.builds(
    lambda seed, noise, make: make(seed, noise=noise, contraction=GAMMA),
    st.integers(0, 2**31),
    st.floats(0.0, 3.0),
    st.sampled_from([small_model, stiff_model, message_model]),
)


@settings(max_examples=60)
@given(models, graphs, st.integers(0, 2**31), st.floats(0.01, 100.0))
def test_cell_is_a_contraction_for_random_geometry_and_weights(
    model: EnergyModel, graph: Graph, seed: int, size: float
) -> None:
    species = model.species(graph.numbers)
    injection = model.encode(graph.vectors, species, graph.neighbors, graph.mask)
    assert float(injection.gates.abs().amax(-1).sum(1).max()) <= 1.0
    weights, shape = model.cell_weights(), injection.u.shape
    generator = torch.Generator().manual_seed(seed)
    z, y, t = (size * torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3))
    images = [weights.apply(x, injection, graph.neighbors) for x in (z, y)]
    assert norm(images[0] - images[1]) <= GAMMA * norm(z - y) * (1 + 1e-12)
    _, slope = weights.linearize(z, injection, graph.neighbors)
    pushed = weights.jvp(t, slope, injection.gates, graph.neighbors)
    assert norm(pushed) <= GAMMA * norm(t) * (1 + 1e-12)
    pulled = weights.vjp(y, slope, reverse_gates(injection.gates, graph.reverse), graph.neighbors)
    assert float((pulled * t).sum()) == pytest.approx(float((y * pushed).sum()), rel=1e-10, abs=1e-10)


@settings(max_examples=25)
@given(models, graphs)
def test_any_model_has_an_equilibrium_in_any_geometry(model: EnergyModel, graph: Graph) -> None:
    evaluation = evaluate(model, graph, forces=True, tol=1e-8)
    assert bool(evaluation.equilibrium.converged.all())
    assert bool(torch.isfinite(evaluation.energies).all())
    assert evaluation.forces is not None
    assert bool(torch.isfinite(evaluation.forces).all())


def test_influence_falls_with_the_distance_in_cutoffs() -> None:
    """What an atom feels of a change `n` cutoffs away is at most `γⁿ` of it."""
    chain = Atoms("Si12", positions=[[2.5 * k, 0.3 * (k % 2), 0.0] for k in range(12)])
    moved = chain.copy()
    moved.positions[0] += [0.1, 0.2, 0.3]
    model = stiff_model(1, contraction=GAMMA)
    first, second = (
        evaluate(model, graph_from_atoms(a, CUTOFF, dtype=torch.float64), tol=1e-24).equilibrium.z
        for a in (chain, moved)
    )
    change = (first - second).norm(dim=-1)
    steps = torch.arange(12) - 1  # one neighbour a side is within the cutoff; atom 1 feels the move directly
    assert bool((change[2:] <= change[:2].max() * GAMMA ** steps[2:] / (1 - GAMMA)).all())
    assert 0.0 < float(change[-1]) < 1e-2 * float(change[0])


def test_reference_energies_are_added_in_double_precision() -> None:
    model = small_model(dtype=torch.float32)
    energies, scales = dict.fromkeys(ELEMENTS, -1e6 - 1e-4), dict.fromkeys(ELEMENTS, 1.0)
    atom = graph_from_atoms(Atoms("Si"), CUTOFF)
    model.set_reference(dict.fromkeys(ELEMENTS, 0.0), scales)
    bare = float(evaluate(model, atom).energy)
    model.set_reference(energies, scales)
    assert model.float().reference.dtype == torch.float64
    assert float(evaluate(model, atom).energy) == pytest.approx(bare - 1e6 - 1e-4, abs=1e-9)


def test_scales_multiply_the_learnt_energy() -> None:
    model, zero = small_model(), dict.fromkeys(ELEMENTS, 0.0)
    atom, found = graph_from_atoms(Atoms("Si"), CUTOFF, dtype=torch.float64), []
    for scale in (1.0, 2.5):
        model.set_reference(zero, dict.fromkeys(ELEMENTS, scale))
        found.append(float(evaluate(model, atom, tol=1e-24).energy))
    assert found[1] == pytest.approx(2.5 * found[0], rel=1e-12)


def test_species_are_told_apart() -> None:
    model, energies = small_model(), set()
    for symbol in ("Si", "C", "Cu"):
        pair = Atoms(["Si", symbol], positions=[[0.0, 0.0, 0.0], [2.5, 0.0, 0.0]])
        energies.add(round(float(evaluate(model, graph_from_atoms(pair, CUTOFF, dtype=torch.float64)).energies[0]), 6))
    assert len(energies) == 3


def test_configs_come_back() -> None:
    config = DEQAttentionConfig(elements=(6, 14), cutoff=4.5)
    assert from_dict(DEQAttentionConfig, to_dict(config)) == config


@pytest.mark.parametrize("name", packaged_models())
def test_packaged_models_say_all_their_sizes(name: str) -> None:
    """So that defaults may change."""
    config = load_model(name).config
    assert json.loads(read_header(model_files(name)[0])["config"]) == json.loads(json.dumps(to_dict(config)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"elements": ()}, "give different atomic numbers in ascending order"),
        ({"elements": (14, 6)}, r"elements is \(14, 6\)"),
        ({"elements": (6, 6)}, "give different atomic numbers"),
        ({"elements": (0,)}, "give different atomic numbers"),
        ({"elements": (500,)}, "give different atomic numbers"),
        ({"cutoff": 0.0}, "cutoff is 0.0 Å; it has to be a positive number"),
        ({"cutoff": float("nan")}, "cutoff is nan"),
        ({"n_radial": 0}, "n_radial is 0; it has to be at least 1"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"n_edge": 30}, "n_edge is 30; it has to be a multiple of n_heads, 4"),
        ({"n_pairs": 0}, "n_pairs is 0; it has to be in 1 to 17"),
        ({"n_pairs": 18}, "n_pairs is 18"),
        ({"n_bispectrum": -1}, "n_bispectrum is -1"),
        ({"n_message": -2}, "n_message is -2; it has to be at least 0, for none"),
        ({"l_max": 9}, "l_max is 9; it has to be in 0 to 8"),
        ({"contraction": 1.0}, "contraction is 1.0; it has to be between 0 and 1"),
    ],
)
def test_configs_that_make_no_model(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(DEQAttentionConfig(elements=(6, 14)), **changes)


def test_making_a_model_of_default_size() -> None:
    model = DEQAttention(DEQAttentionConfig(elements=(6, 14)))
    assert model.elements == (6, 14)
    assert (model.cutoff, model.n_channels) == (5.0, 64)


def test_calibrated_features_have_mean_zero_and_spread_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a species with many atoms; `test_moments` says what becomes of one with few."""
    monkeypatch.setattr("ase_andersonn.potentials.moments.POOLED_ATOMS", 0.0)
    model = message_model()
    graphs = [random_graph(seed, 40, 0.05) for seed in range(4)]
    geometries = [(graph.vectors, model.species(graph.numbers), graph.neighbors, graph.mask) for graph in graphs]
    model.calibrate(lambda: geometries)
    environment, messages = [], []
    for vectors, index, near, mask in geometries:
        geometry = Neighborhoods(vectors, index, index[near], mask)
        environment.append(model.environment(geometry).features)
        messages.append(model.message_features(geometry, gathered(model.embed(geometry).message, near)))
    species = torch.cat([geometry[1] for geometry in geometries])
    for rows, feature_mean, feature_std in (
        (torch.cat(environment), model.feature_mean, model.feature_std),
        (torch.cat(messages), model.message_mean, model.message_std),
    ):
        scaled = (rows - feature_mean[species]) / feature_std[species]
        for index in range(len(ELEMENTS)):
            own, free = scaled[species == index], feature_std[index] > 0.1
            assert bool(free.any())
            assert float(own.mean(0).abs().max()) < 1e-9
            expected = torch.ones_like(own[0][free])
            torch.testing.assert_close(own.std(0, correction=0)[free], expected, rtol=0.02, atol=0.0)


def test_an_atom_hears_of_what_its_neighbours_see_and_of_nothing_else() -> None:
    """Without messages of the equilibrium: energies feel a change two cutoffs away, and none further away."""
    chain = Atoms("Si8", positions=[[2.5 * k, 0.3 * (k % 2), 0.0] for k in range(8)])
    moved = chain.copy()
    moved.positions[0] += [0.1, 0.2, 0.3]
    for model, last in ((small_model(1), 1), (message_model(1), 2)):
        assert model.receptive_field == last * CUTOFF
        found = []
        for atoms in (chain, moved):
            graph = graph_from_atoms(atoms, CUTOFF, dtype=torch.float64)
            injection = model.encode(graph.vectors, model.species(graph.numbers), graph.neighbors, graph.mask)
            found.append(torch.cat([injection.u, injection.v], 1))
        first, second = found
        changed = (first - second).abs().amax(1) > 1e-6
        assert changed.tolist() == [True] * (last + 1) + [False] * (7 - last)


@pytest.mark.parametrize("sizes", [{}, {"rank": 2}])
def test_the_linear_path_is_linear_and_beside_the_network(sizes: dict[str, int]) -> None:
    """Where the network says nothing, energies are linear in what is seen; where the path does not, it is not there."""
    model = small_model(linear=True, **sizes)
    own = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    species = torch.arange(5)
    _, u, v = model.injected(own, species)
    for parameter in (model.injection[2].linear.weight, model.injection[2].bias, model.output):
        parameter.zero_()
    path = [model.read(u, model.injected(x, species)[1], species) for x in (own, 3.0 * own, 0.0 * own)]
    torch.testing.assert_close(path[1] - path[2], 3.0 * (path[0] - path[2]))
    assert float((path[0] - path[2]).abs().min()) > 1e-3

    model, without = small_model(linear=True, **sizes), small_model(linear=False, **sizes)
    for parameter in (*model.linear_inject.parameters(), model.linear_output):
        parameter.zero_()
    without.load_state_dict({name: x for name, x in model.state_dict().items() if not name.startswith("linear_")})
    for first, second in zip(model.injected(own, species), without.injected(own, species), strict=True):
        assert torch.equal(first, second)
    assert torch.equal(model.read(u, v, species), without.read(u, v, species))


def test_calibration_gives_unseen_species_the_units_of_the_others() -> None:
    model = small_model()
    graph = graph_from_atoms(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]]), CUTOFF, dtype=torch.float64)
    species = model.species(graph.numbers)
    model.calibrate(lambda: [(graph.vectors, species, graph.neighbors, graph.mask)])
    copper = ELEMENTS.index(29)
    assert bool(model.feature_mean[copper].any())
    for index in range(len(ELEMENTS)):
        torch.testing.assert_close(model.feature_mean[index], model.feature_mean[copper])
        torch.testing.assert_close(model.feature_std[index], model.feature_std[copper])
