"""Energy, forces and stress of batches, their errors, and their exact gradients in the weights."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_models import (
    STRUCTURES,
    cartesian_model,
    ethanol,
    silicon,
    skewed,
    slab,
    small_model,
    stiff_model,
    telling_model,
)

from ase_andersonn.engine import weight_gradients
from ase_andersonn.engine.energy_forces import evaluate, forces_from, stresses_from
from ase_andersonn.engine.equilibrium import Start
from ase_andersonn.nn.equilibrium_cell import apply_cell
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers.base import Solver
from ase_andersonn.solvers.picard import Picard
from ase_andersonn.structures.graph import Graph, graph_from_atoms

TIGHT = 1e-24


def graph_of(*names: str, dtype: torch.dtype = torch.float64) -> Graph:
    return graph_from_atoms([STRUCTURES[name]() for name in names], 4.0, dtype=dtype)


def plain_model(seed: int = 0) -> EnergyModel:
    """Of values that are not separable, without a bispectrum, without a linear path."""
    return small_model(seed, separable=False, n_bispectrum=0, linear=False)


def unrolled(model: EnergyModel, graph: Graph, steps: int = 120) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energy, forces and stress by back-propagation through many applications of the cell."""
    species, vectors = model.species(graph.numbers), graph.vectors.clone().requires_grad_()
    near = Neighborhoods(vectors, species, species[graph.neighbors], graph.mask)
    injection, weights = model.encode(vectors, species, graph.neighbors, graph.mask), model.cell_weights()
    z = injection.u
    for _ in range(steps):
        z = apply_cell(z, injection, graph.neighbors, weights)
    energies = model.readout(z, species) + model.pair_energies(near)
    energies = energies + model.reference_energies(species)
    (gradient,) = torch.autograd.grad(energies.sum(), vectors, create_graph=True)
    stresses = stresses_from(gradient, graph)

    def total(rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows[graph.system == k].sum(0) for k in range(graph.n_systems)])

    return total(energies), forces_from(gradient, graph), total(stresses)


def loss_of(energy: torch.Tensor, forces: torch.Tensor, stress: torch.Tensor, graph: Graph, parts: str) -> torch.Tensor:
    """A loss linear and quadratic in what is asked for: energy `e`, forces `f`, stress `s`."""
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros((), dtype=torch.float64)
    for part, value in (("e", energy), ("f", forces), ("s", stress)):
        weights = torch.randn(value.shape, dtype=torch.float64, generator=generator)
        if part in parts:
            finite = torch.isfinite(value)
            loss = loss + (weights[finite] * value[finite]).sum() + value[finite].square().sum()
    return loss


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("bulk", "skewed"), "efs"),
        (("bulk", "skewed"), "f"),
        (("skewed",), "s"),
        (("bulk",), "e"),
        (("molecule", "slab"), "ef"),
    ],
)
@pytest.mark.parametrize("make", [small_model, plain_model, telling_model, stiff_model, cartesian_model])
def test_weight_gradient_is_that_of_unrolled_double_back_propagation(
    names: tuple[str, ...], parts: str, make: Callable[[int], EnergyModel]
) -> None:
    model, graph = make(4).requires_grad_(True), graph_of(*names)
    evaluation = evaluate(model, graph, forces=True, stress=True, tol=TIGHT)
    assert evaluation.forces is not None
    assert evaluation.stress is not None
    given = loss_of(evaluation.energy, evaluation.forces, evaluation.stress, graph, parts)
    expected = loss_of(*unrolled(model, graph), graph, parts)
    assert given.item() == pytest.approx(expected.item(), rel=1e-11)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(given, list(parameters.values()))
    references = torch.autograd.grad(expected, list(parameters.values()), allow_unused=True)
    scale = max(float(r.norm()) for r in references if r is not None)
    for name, gradient, reference in zip(parameters, gradients, references, strict=True):
        if reference is None:
            assert float(gradient.norm()) == 0.0, name
        else:
            error = float((gradient - reference).norm())
            assert error <= 1e-9 * max(float(reference.norm()), 1e-6 * scale), f"{name}: {error}"


@pytest.mark.parametrize("make", [small_model, telling_model, cartesian_model])
def test_plain_steps_alone_give_the_weight_gradient(
    make: Callable[[int], EnergyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in training, where the solver is not asked."""

    def refuse(*_args: object, **_settings: object) -> None:
        raise AssertionError("the solver was asked")

    model, graph = make(4).requires_grad_(True), graph_of("bulk", "skewed")
    evaluation = evaluate(model, graph, forces=True, stress=True, tol=TIGHT)
    assert evaluation.forces is not None
    assert evaluation.stress is not None
    given = loss_of(evaluation.energy, evaluation.forces, evaluation.stress, graph, "efs")
    expected = loss_of(*unrolled(model, graph), graph, "efs")
    references = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    monkeypatch.setattr(weight_gradients, "TANGENT_STEPS", (120, 120))
    monkeypatch.setattr(weight_gradients, "solve_linear", refuse)
    gradients = torch.autograd.grad(given, list(model.parameters()))
    scale = max(float(r.norm()) for r in references if r is not None)
    for gradient, reference in zip(gradients, references, strict=True):
        error = float((gradient - (0.0 if reference is None else reference)).norm())
        assert error <= 1e-9 * scale


@pytest.mark.parametrize("make", [small_model, telling_model, cartesian_model])
def test_weight_gradient_is_a_finite_difference_of_the_loss(make: Callable[[int], EnergyModel]) -> None:
    """Independent of any back-propagation through the model."""
    model, graph = make(5).requires_grad_(True), graph_of("skewed", "molecule")

    def loss() -> torch.Tensor:
        evaluation = evaluate(model, graph, forces=True, stress=True, tol=TIGHT)
        assert evaluation.forces is not None
        assert evaluation.stress is not None
        return loss_of(evaluation.energy, evaluation.forces, evaluation.stress, graph, "efs")

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters]
    expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def along(step: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
            value = float(loss())
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=step)
        return value

    numerical = [(along(h) - along(-h)) / (2 * h) for h in (1e-4, 5e-5)]
    assert (4 * numerical[1] - numerical[0]) / 3 == pytest.approx(expected, rel=1e-6)


def test_what_would_be_a_wrong_weight_gradient_is_refused() -> None:
    model, graph = small_model(), graph_of("bulk")
    model.requires_grad_(True)
    weights = list(model.parameters())
    loss = evaluate(model, graph, forces=True).energy.square().sum()
    with pytest.raises(RuntimeError, match="differentiable in the weights once"):
        torch.autograd.grad(loss, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable in the weights once"):
        evaluate(model, graph).energy.sum().backward(create_graph=True)
    energy = evaluate(model, graph, forces=True).energy.sum()
    with torch.no_grad():
        weights[0].mul_(1.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        energy.backward()
    evaluation = evaluate(model, graph, forces=True)
    evaluation.equilibrium.adjoint.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        evaluation.energy.sum().backward()


def test_an_atom_s_own_energy_has_no_gradient_in_the_weights() -> None:
    """It is not stationary in the features: a gradient at fixed features would be wrong."""
    evaluation = evaluate(small_model().requires_grad_(True), graph_of("bulk"), forces=True, stress=True)
    assert not evaluation.energies.requires_grad
    assert evaluation.energy.requires_grad


@pytest.mark.parametrize("forces", [False, True])
def test_weights_that_ask_for_no_gradient_change_nothing_for_the_others(forces: bool) -> None:
    model, graph = cartesian_model(4).requires_grad_(True), graph_of("bulk", "slab")

    def gradients() -> list[torch.Tensor]:
        found = evaluate(model, graph, forces=forces, tol=TIGHT)
        loss = found.energy.square().sum() + (0.0 if found.forces is None else found.forces.square().sum())
        return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))

    expected = gradients()
    names = [name for name, _ in model.named_parameters()]
    kept = [name.startswith(("attention", "hidden")) for name in names]
    for parameter, keep in zip(model.parameters(), kept, strict=True):
        parameter.requires_grad_(keep)
    assert 0 < sum(kept) < len(kept)
    torch.testing.assert_close(gradients(), [g for g, keep in zip(expected, kept, strict=True) if keep])


@pytest.mark.parametrize("make", [small_model, telling_model, cartesian_model])
def test_energies_alone_have_the_unrolled_gradient(make: Callable[[int], EnergyModel]) -> None:
    model, graph = make(4).requires_grad_(True), graph_of("bulk", "molecule")
    parameters = list(model.parameters())
    given = torch.autograd.grad(evaluate(model, graph, tol=TIGHT).energy.square().sum(), parameters)
    expected = torch.autograd.grad(unrolled(model, graph)[0].square().sum(), parameters, allow_unused=True)
    for gradient, reference in zip(given, expected, strict=True):
        torch.testing.assert_close(
            gradient, torch.zeros_like(gradient) if reference is None else reference, rtol=1e-9, atol=1e-9
        )


def test_values_are_the_same_with_and_without_gradients() -> None:
    model, graph = small_model(6), graph_of("bulk", "molecule")
    without = evaluate(model, graph, forces=True, stress=True)
    model.requires_grad_(True)
    with_gradients = evaluate(model, graph, forces=True, stress=True)
    for name in ("energy", "energies", "forces", "stress"):
        first, second = (getattr(found, name).detach() for found in (without, with_gradients))
        if name in ("forces", "stress"):  # what is to be differentiated once more is rounded otherwise
            torch.testing.assert_close(first, second, rtol=1e-13, atol=1e-14, equal_nan=True)
        else:
            assert torch.equal(first, second)
    with torch.no_grad():
        assert not evaluate(model, graph).energy.requires_grad


def test_only_what_is_asked_for_is_given() -> None:
    model, graph = small_model(), graph_of("bulk")
    energy, forces = evaluate(model, graph), evaluate(model, graph, forces=True)
    assert (energy.forces, energy.stress, energy.stresses) == (None, None, None)
    assert forces.forces is not None
    assert forces.stress is None
    both = evaluate(model, graph, stress=True)
    assert both.forces is None
    assert both.stress is not None
    assert torch.equal(energy.energy, both.energy)


def test_stress_of_a_structure_without_a_volume_is_not_a_number() -> None:
    evaluation = evaluate(small_model(), graph_of("bulk", "slab", "skewed"), forces=True, stress=True)
    assert evaluation.stress is not None
    assert torch.isfinite(evaluation.stress).all(-1).all(-1).tolist() == [True, False, True]


@pytest.mark.parametrize("make", [small_model, telling_model, cartesian_model])
def test_an_atom_s_stress_is_the_symmetric_virial_of_its_edges(make: Callable[[int], EnergyModel]) -> None:
    """`σ_i = (1/2V) Σ_k (d_ik ⊗ g_ik + g_ik ⊗ d_ik)`, with `g = dE/dd` by back-propagation through all steps."""
    model, graph = make(4), graph_of("bulk", "skewed")
    stresses = evaluate(model, graph, stress=True, tol=TIGHT).stresses
    assert stresses is not None
    assert torch.equal(stresses, stresses.transpose(1, 2))
    species, vectors = model.species(graph.numbers), graph.vectors.clone().requires_grad_()
    injection, weights = model.encode(vectors, species, graph.neighbors, graph.mask), model.cell_weights()
    z = injection.u
    for _ in range(120):
        z = apply_cell(z, injection, graph.neighbors, weights)
    near = Neighborhoods(vectors, species, species[graph.neighbors], graph.mask)
    energies = model.readout(z, species) + model.pair_energies(near)
    (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    virial = torch.einsum("ikx,iky->ixy", vectors, gradient).detach()
    volume = torch.tensor([STRUCTURES[name]().get_volume() for name in ("bulk", "skewed")], dtype=torch.float64)
    expected = 0.5 * (virial + virial.mT) / volume[graph.system][:, None, None]
    if make is cartesian_model:  # what others send as scalars is turned with nothing: symmetric by itself
        assert float((virial - virial.mT).norm() / virial.norm()) > 1e-6
    torch.testing.assert_close(stresses, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tol", [1e-6, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_structure_does_not_feel_its_batch_mates(dtype: torch.dtype, tol: float) -> None:
    model, names = small_model(dtype=dtype), list(STRUCTURES)
    together = evaluate(model, graph_of(*names, dtype=dtype), forces=True, tol=tol)
    assert together.forces is not None
    forces = together.forces.split(together.n_per_system.tolist())
    for index, name in enumerate(names):
        alone = evaluate(model, graph_of(name, dtype=dtype), forces=True, tol=tol)
        n = len(alone.energies)
        assert float((together.energy[index] - alone.energy[0]).abs()) / n <= tol
        assert alone.forces is not None
        scale = max(1.0, float(alone.forces.abs().max()))
        assert float((forces[index] - alone.forces).abs().max()) <= 3 * math.sqrt(tol) * scale


def bare_energy(model: EnergyModel, graph: Graph, z: torch.Tensor) -> torch.Tensor:
    """`E(z)` of each structure, without the correction."""
    species = model.species(graph.numbers)
    pairs = model.pair_energies(Neighborhoods(graph.vectors, species, species[graph.neighbors], graph.mask))
    energies = model.readout(z, species) + pairs + model.reference_energies(species)
    return energies.new_zeros(graph.n_systems).index_add(0, graph.system, energies)


def test_error_of_the_energy_is_quadratic_in_the_residual() -> None:
    """Slopes 2 of `L` and 1 of `E(z)` in a log-log plot of errors against residuals, averaged over structures."""
    graph, points = graph_of("bulk", "slab", "molecule"), []
    for model in map(stiff_model, range(4)):
        exact = evaluate(model, graph, tol=TIGHT).energy
        for steps in range(4, 19, 2):
            evaluation = evaluate(model, graph, solver=Picard(), max_steps=steps, tol=1e-300)
            errors = evaluation.energy - exact, bare_energy(model, graph, evaluation.equilibrium.z) - exact
            points.append(torch.stack([evaluation.equilibrium.forward.residual, *(e.abs() for e in errors)]))
    means = torch.stack(points).log().view(4, 8, 3, 3).mean((0, 3)).numpy()  # seeds, steps, quantities, structures
    residual, error, bare = means.T
    assert np.polyfit(residual, error, 1)[0] == pytest.approx(2.0, abs=0.2)
    assert np.polyfit(residual, bare, 1)[0] == pytest.approx(1.0, abs=0.1)
    assert (error < bare - 1).all()


def test_error_of_the_energy_is_estimated() -> None:
    """`|⟨λ, f(z) − z⟩|` bounds the error of the energy, and is brought below the tolerance."""
    model, graph = stiff_model(1), graph_of("bulk", "molecule")
    exact = evaluate(model, graph, tol=TIGHT).energy
    for tol in (1e-3, 1e-5, 1e-7, 1e-9):
        evaluation = evaluate(model, graph, tol=tol)
        assert bool(evaluation.equilibrium.converged.all())
        assert bool((evaluation.equilibrium.error <= tol).all())
        assert bool(((evaluation.energy - exact).abs() / evaluation.n_per_system <= tol).all())


def test_not_reaching_the_equilibrium_is_reported() -> None:
    evaluation = evaluate(small_model(), graph_of("bulk", "molecule"), max_steps=2, tol=1e-20)
    assert evaluation.equilibrium.converged.tolist() == [False, False]


def test_a_start_from_the_solution_needs_one_evaluation() -> None:
    model, graph = small_model(), graph_of("slab")
    found = evaluate(model, graph, tol=1e-16).equilibrium
    again = evaluate(model, graph, tol=1e-12, begin=lambda _: Start(found.z, found.adjoint))
    assert again.equilibrium.forward.evaluations == 1
    assert again.equilibrium.backward.evaluations == 1


@pytest.mark.parametrize("solver", [Picard()], ids=["picard"])
def test_the_equilibrium_does_not_depend_on_the_solver(solver: Solver) -> None:
    model, graph = small_model(), graph_of("bulk", "slab")
    expected, given = (evaluate(model, graph, tol=1e-20, **kw) for kw in ({}, {"solver": solver, "max_steps": 200}))
    torch.testing.assert_close(given.energy, expected.energy, rtol=0, atol=1e-12)
    torch.testing.assert_close(given.equilibrium.z, expected.equilibrium.z, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [small_model, plain_model, telling_model, stiff_model, cartesian_model])
def test_equilibrium_is_far_from_its_start(make: Callable[[], EnergyModel]) -> None:
    """The tests above would say little of a cell that hardly does anything."""
    model, graph = make(), graph_of("bulk")
    eq = evaluate(model, graph, tol=TIGHT).equilibrium
    u = eq.encoding.injection.u
    assert float((eq.z - u).norm() / eq.z.norm()) > 0.1
    assert float((bare_energy(model, graph, u) - bare_energy(model, graph, eq.z)).abs()) > 0.01


def test_an_element_that_the_model_does_not_know() -> None:
    atoms = silicon()
    atoms.numbers[:2] = [79, 104]
    text = "contains Au, Rf; this model knows H, C, O, Si, Cu. No packaged model knows Au, Rf: train one"
    with pytest.raises(ValueError, match=text):
        evaluate(small_model(), graph_from_atoms(atoms, 4.0, dtype=torch.float64))


@pytest.mark.parametrize("make", [silicon, skewed, slab, ethanol])
def test_float32_is_close_to_float64(make: Any) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        model = small_model(dtype=torch.float32).to(dtype)
        results.append(evaluate(model, graph_from_atoms(make(), 4.0, dtype=dtype), forces=True, tol=1e-9))
    single, double = results
    assert float((single.energies - double.energies).abs().max()) <= 1e-5 * float(double.energies.abs().max())
    assert single.forces is not None
    assert double.forces is not None
    torch.testing.assert_close(
        single.forces.double(), double.forces, rtol=0, atol=1e-4 * float(double.forces.abs().max())
    )
