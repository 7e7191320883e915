"""Gradients of energies, forces and stress in the weights, against back-propagation and finite differences."""

from collections.abc import Callable

import pytest
import torch
from graphs import TIGHT, graph_of
from small_models import cartesian_model, message_model, small_model, stiff_model

from ase_andersonn.engine import weight_gradients
from ase_andersonn.engine.energy_forces import evaluate, forces_from, stresses_from
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import Graph


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
        z = weights.apply(z, injection, graph.neighbors)
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
@pytest.mark.parametrize("make", [small_model, plain_model, message_model, stiff_model, cartesian_model])
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


@pytest.mark.parametrize("make", [small_model, message_model, cartesian_model])
def test_picard_iterations_alone_give_the_weight_gradient(
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


@pytest.mark.parametrize("make", [small_model, message_model, cartesian_model])
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


@pytest.mark.parametrize("make", [small_model, message_model, cartesian_model])
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
