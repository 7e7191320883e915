"""The graph classifier: its symmetries, its fixed point and gradients, its files, and structures it cannot take."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from torch import Tensor

from ase_andersonn.checkpoints.checkpoint import load_classifier, load_model, save_model
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.classifiers.layers.implicit_cell import CellSolver, equilibrium, spectral_radius
from ase_andersonn.labels import POLARITY, PORE_SIZE
from ase_andersonn.nn.equilibrium_cell import CellWeights, ContractiveCell, Injection
from ase_andersonn.nn.messages import FeatureShape
from ase_andersonn.solvers import Anderson, Picard, Segments, fixed_point, solve, solve_linear

SMALL = GraphClassifierConfig(
    cutoff=4.0, n_radial=4, n_channels=8, n_element=8, n_edge=8, n_token=8, n_heads=2, n_hidden=16, n_pooled=8,
    n_features=8, tolerance=1e-7,
)  # fmt: skip


def salts() -> list[Atoms]:
    """Primitive cells of a few compounds."""
    return [bulk("NaCl", "rocksalt", 5.64), bulk("GaAs", "zincblende", 5.65), bulk("CsCl", "cesiumchloride", 4.12)]


@pytest.fixture
def model() -> GraphClassifier:
    torch.manual_seed(3)
    found = GraphClassifier(SMALL)
    with torch.no_grad():
        found.learned.normal_(0.0, 0.3)
    found.calibrate([found.sample(atoms) for atoms in salts()])
    return found.double().eval()


def probabilities(model: GraphClassifier, *structures: Atoms) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(model.prepare(structures)).softmax(-1)
    return found


@pytest.mark.parametrize("atoms", salts(), ids=lambda a: str(a.symbols))
def test_one_crystal_has_one_answer(model: GraphClassifier, atoms: Atoms) -> None:
    rng = np.random.default_rng(0)
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    turned = atoms.copy()
    turned.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    moved = atoms.copy()
    moved.positions += rng.normal(size=3)
    mirrored = atoms.copy()
    mirrored.set_cell(-atoms.cell.array, scale_atoms=True)
    conventional = make_supercell(atoms, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    supercell = atoms.repeat(2)
    shuffled = supercell[rng.permutation(len(supercell))]
    expected = probabilities(model, atoms)[0]
    for other in (turned, moved, mirrored, conventional, supercell, shuffled):
        assert torch.allclose(probabilities(model, other)[0], expected, atol=1e-6)


def test_float32_is_as_invariant_as_promised(model: GraphClassifier) -> None:
    model = model.float()
    for atoms in salts():
        assert torch.allclose(probabilities(model, atoms), probabilities(model, atoms.repeat(2)), atol=1e-5)


def test_a_batch_is_its_structures_one_by_one(model: GraphClassifier) -> None:
    structures = [*salts(), bulk("Cu"), molecule("H2O"), Atoms("He")]
    together = probabilities(model, *structures)
    for atoms, row in zip(structures, together, strict=True):
        assert torch.allclose(probabilities(model, atoms)[0], row, atol=1e-6)
    assert model.statistics is not None
    assert bool(model.statistics.converged.all())


def test_the_answer_is_continuous_where_a_neighbour_comes_in(model: GraphClassifier) -> None:
    def answer(distance: float) -> Tensor:
        return probabilities(model, Atoms("NaCl", [(0, 0, 0), (distance, 0, 0)]))[0]

    assert torch.allclose(answer(SMALL.cutoff - 1e-4), answer(SMALL.cutoff + 1e-4), atol=1e-8)
    assert not torch.allclose(answer(2.0), answer(3.0), atol=1e-4)


def test_elements_never_seen_have_an_answer_of_their_own(model: GraphClassifier) -> None:
    with torch.no_grad():
        model.learned.zero_()
    francium, cesium, chlorine = (
        probabilities(model, Atoms(f"{x}Cl", [(0, 0, 0), (3, 0, 0)])) for x in ("Fr", "Cs", "Br")
    )
    assert (francium - cesium).abs().sum() < (chlorine - cesium).abs().sum()


def test_the_cell_contracts(model: GraphClassifier) -> None:
    batch = model.prepare([atoms.repeat(2) for atoms in salts()])
    graph = batch.graph
    injection = model.encode(*model.edge_inputs(batch), graph.mask)
    weights = model.cell.weights()
    torch.manual_seed(0)
    y, z = torch.randn(2, graph.n_atoms, SMALL.n_channels, dtype=torch.float64)
    moved = weights.apply(y, injection, graph.neighbors) - weights.apply(z, injection, graph.neighbors)
    assert moved.norm(dim=1).max() <= SMALL.contraction * (y - z).norm(dim=1).max() + 1e-12


def test_molecules_are_classified_by_dipoles() -> None:
    torch.manual_seed(0)
    model = GraphClassifier(replace(SMALL, labels=POLARITY, n_dipoles=4)).double().eval()
    water = molecule("H2O")
    turned = water.copy()
    turned.rotate(50.0, (1.0, 1.0, 0.0))
    turned.positions += 3.0
    assert torch.allclose(probabilities(model, water), probabilities(model, turned[[2, 0, 1]]), atol=1e-8)
    z, _, injection = model.equilibrium(batch := model.prepare([molecule("CH4"), water, bulk("Si").repeat(2)]))
    methane, dipoles, crystal = model.dipoles(z, injection.gates, batch)
    assert torch.allclose(methane, torch.tensor(1e-3, dtype=torch.float64), atol=1e-6)  # by symmetry none
    assert dipoles.max() > 5e-3
    assert torch.equal(crystal, torch.full_like(crystal, 1e-3))


def test_frameworks_are_classified_by_pores() -> None:
    # in both no atom sees another, and the density is the same
    even, uneven = (Atoms("Ne2", [(0, 0, 0), (0, 0, z)], cell=[8, 8, 24], pbc=True) for z in (12.0, 4.5))
    others = [bulk("Ne", "fcc", a, cubic=True) for a in (5.0, 7.0, 9.0, 13.0, 17.0)]
    for pores in (False, True):
        torch.manual_seed(0)
        model = GraphClassifier(replace(SMALL, labels=PORE_SIZE, pores=pores)).double().eval()
        model.calibrate([model.sample(atoms) for atoms in (even, uneven, *others)])
        p, q, together = probabilities(model, even), probabilities(model, uneven), probabilities(model, even, uneven)
        assert torch.allclose(p, q, atol=1e-6) == (not pores)
        assert torch.allclose(together, torch.cat([p, q]), atol=1e-6)
        assert torch.allclose(probabilities(model, even.repeat((2, 1, 1))), p, atol=1e-2)


def test_without_voids_nothing_is_added() -> None:
    names = GraphClassifier(SMALL).state_dict().keys()
    assert {*GraphClassifier(replace(SMALL, pores=True)).state_dict()} - {*names} == {
        "pores.mean",
        "pores.std",
        "direct.weight",
    }
    assert "pores" not in GraphClassifier(SMALL).sample(bulk("Cu"))


# The fixed point's derivatives


def small_problem() -> tuple[list[Tensor], Tensor, Tensor, Segments]:
    torch.manual_seed(1)
    neighbors = torch.tensor([[1, 2], [0, 0], [0, 2], [4, 4], [3, 3]])
    reverse = torch.tensor([[2, 4], [0, 3], [1, 5], [8, 9], [6, 7]])
    weights = ContractiveCell(0.8, FeatureShape(3, 0, 0)).double().weights()
    gates = 0.3 * torch.randn(5, 2, 3, dtype=torch.float64)
    gates[1, 1] = gates[2, 1] = 0.0  # padded places
    given = [
        torch.randn(5, 3, dtype=torch.float64),
        torch.randn(5, 3, dtype=torch.float64),
        gates,
        *(matrix for (matrix,) in weights),
    ]
    return [x.detach().requires_grad_() for x in given], neighbors, reverse, Segments(torch.tensor([0, 0, 0, 1, 1]), 2)


def test_gradients_of_the_equilibrium() -> None:
    given, neighbors, reverse, segments = small_problem()

    def solved(*given: Tensor) -> Tensor:
        solver = CellSolver(Anderson(), 1e-13, 200)
        return equilibrium(
            Injection(*given[:3]), CellWeights.of_scalars(*given[3:]), neighbors, reverse, segments, solver
        )

    mask = torch.ones_like(given[2])
    mask[1, 1] = mask[2, 1] = 0.0
    assert torch.autograd.gradcheck(
        lambda u, v, gates, *weights: solved(u, v, gates * mask, *weights), given, atol=1e-7, fast_mode=False
    )


def test_the_equilibrium_is_that_of_the_general_operator() -> None:
    given, neighbors, reverse, segments = small_problem()

    def cell(z: Tensor, *given: Tensor) -> Tensor:
        return CellWeights.of_scalars(*given[3:]).apply(z, Injection(*given[:3]), neighbors)

    def linear(f: object, x: Tensor) -> Tensor:
        return solve_linear(f, x, solver=Anderson(), tol=1e-12, max_steps=100).value  # type: ignore[arg-type]

    start = torch.zeros(5, 3, dtype=torch.float64)
    star = solve(lambda z: cell(z, *given), start, solver=Anderson(), tol=1e-13, max_steps=200).value
    general = fixed_point(cell, linear, star, *given)
    solver = CellSolver(Anderson(), 1e-13, 200)
    own = equilibrium(Injection(*given[:3]), CellWeights.of_scalars(*given[3:]), neighbors, reverse, segments, solver)
    assert torch.allclose(own, general, atol=1e-11)
    target = torch.randn(5, 3, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(own, given, target), torch.autograd.grad(general, given, target), strict=True):
        keep = b != 0  # padded gates have no meaning
        assert torch.allclose(a[keep], b[keep], atol=1e-9)


def test_the_spectral_radius_is_that_of_the_jacobian() -> None:
    given, neighbors, _, segments = small_problem()
    injection, weights = Injection(*given[:3]), CellWeights.of_scalars(*given[3:])
    z = solve(
        lambda z: weights.apply(z, injection, neighbors), given[0], solver=Anderson(), tol=1e-12, max_steps=100
    ).value
    jacobian = torch.autograd.functional.jacobian(lambda z: weights.apply(z, injection, neighbors), z)
    found = spectral_radius(z, injection, weights, neighbors, segments, 900)
    for rows, radius in zip((slice(0, 3), slice(3, 5)), found, strict=True):
        block = jacobian[rows, :, rows].reshape(2 * [3 * (rows.stop - rows.start)])
        assert radius == pytest.approx(float(torch.linalg.eigvals(block).abs().max()), rel=0.02)


def test_every_solver_finds_the_same_features(model: GraphClassifier) -> None:
    batch = model.prepare(salts())
    expected = model.embed(batch)
    assert bool((model.spectral_radius(batch) < model.config.contraction).all())
    model.solver = Picard()
    assert torch.allclose(model.embed(batch), expected, atol=1e-4)
    assert model.statistics is not None
    plain = model.statistics.evaluations
    model.train()
    model.embed(batch).sum().backward()
    assert model.adjoint_statistics is not None
    assert bool(model.adjoint_statistics.converged.all())
    model.config = replace(model.config, tolerance=1e-30, max_steps=3)
    model.eval().embed(batch)
    assert model.statistics.evaluations == 3 < plain
    assert not bool(model.statistics.converged.any())


def test_every_weight_learns(model: GraphClassifier) -> None:
    model.train().float()
    batch = model.prepare(salts())
    features = model.embed(batch)
    (model.head(features).square().sum() + model.values(features).sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())] == []


# Files and bad input


def test_a_file_contains_the_complete_model(model: GraphClassifier, tmp_path: Path) -> None:
    model = model.float()
    model.temperature.fill_(1.7)
    save_model(model, tmp_path / "model.safetensors", {"origin": "test"})
    again = load_classifier(tmp_path / "model.safetensors")
    assert again.config == model.config
    assert again.card == {"origin": "test"}
    assert again.temperature == model.temperature
    assert torch.equal(probabilities(again, *salts()), probabilities(model, *salts()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds a GraphClassifier, not a Potential"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no model 'nothing'"):
        load_classifier("nothing")


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("H", [(np.nan, 0, 0)]), "not finite"),
        (Atoms("H2", [(0, 0, 0), (0, 0, 0)]), "apart"),
        (Atoms("Og"), r"Z = \[118\]"),
        (Atoms("H", cell=[0, 0, 0], pbc=True), "cell vector is zero"),
    ],
)
def test_structures_without_an_answer(model: GraphClassifier, atoms: Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.sample(atoms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": -1.0}, "cutoff"),
        ({"n_token": 9}, "multiple of n_heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_sizes_that_make_no_model(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]
