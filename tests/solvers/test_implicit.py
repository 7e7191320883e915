"""The implicit operator has the derivatives of the solution, to third order, in every input."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from ase_andersonn.solvers import Anderson, Picard, fixed_point, solve, solve_linear


def tight(f, start):
    return solve_linear(f, start, solver=Anderson(), tol=1e-14, max_steps=200).value


def cell(z, weight, b):
    return 0.5 * torch.tanh(z @ weight) + b


def inputs(seed=0, n_rows=2, n_channels=3):
    generator = torch.Generator().manual_seed(seed)
    weight = 0.4 * torch.randn(n_channels, n_channels, generator=generator, dtype=torch.float64)
    b = torch.randn(n_rows, n_channels, generator=generator, dtype=torch.float64)
    return weight.requires_grad_(), b.requires_grad_()


def solution(weight, b, h=cell):
    found = solve(
        lambda z: h(z, weight.detach(), b.detach()), torch.zeros_like(b), solver=Anderson(), tol=1e-15, max_steps=300
    )
    return fixed_point(h, tight, found.value, weight, b)


def test_first_derivatives():
    assert gradcheck(solution, inputs())


def test_second_derivatives():
    assert gradgradcheck(solution, inputs())


def test_third_derivatives():
    def gradients(weight, b):
        return torch.autograd.grad(solution(weight, b).square().sum(), (weight, b), create_graph=True)

    assert gradgradcheck(gradients, inputs(n_rows=1, n_channels=2))


def test_it_agrees_with_back_propagation_through_the_iterations():
    weight, b = inputs(1)

    def unrolled(weight, b):
        z = torch.zeros_like(b)
        for _ in range(200):
            z = cell(z, weight, b)
        return z

    results = []
    for f in (solution, unrolled):
        loss = (f(weight, b) ** 3).sum()
        (force,) = torch.autograd.grad(loss, b, create_graph=True)
        results.append((force, *torch.autograd.grad(force.square().sum(), (weight, b))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_inputs_without_gradient_and_inputs_that_are_not_used():
    weight, b = inputs()
    unused = torch.ones(1, dtype=torch.float64, requires_grad=True)

    def h(z, weight, b, unused):
        return cell(z, weight, b)

    start = solution(weight, b).detach()
    z = fixed_point(h, tight, start, weight.detach(), b, unused)
    first, second = torch.autograd.grad(z.sum(), (b, unused), allow_unused=True)
    assert second is None
    (expected,) = torch.autograd.grad(solution(weight, b).sum(), b)
    torch.testing.assert_close(first, expected)


def test_a_map_that_does_not_depend_on_z():
    _, b = inputs()
    assert gradcheck(lambda b: fixed_point(lambda z, b: b.sin(), tight, b.detach().sin(), b), (b,))
    assert gradgradcheck(lambda b: fixed_point(lambda z, b: b.sin(), tight, b.detach().sin(), b), (b,))


def test_the_graph_of_a_first_derivative_is_freed():
    """Without create_graph nothing differentiable comes back, and the adjoint is found with values only."""
    weight, b = inputs()
    z = solution(weight, b)
    gradients = torch.autograd.grad(z.sum(), (weight, b))
    assert not any(g.requires_grad for g in gradients)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_the_error_of_the_gradient_follows_the_tolerance(tol):
    weight, b = inputs(2)

    def loose(f, start):
        return solve(f, start, solver=Picard(), tol=tol, max_steps=100).value

    z = solution(weight, b)
    (exact,) = torch.autograd.grad(z.square().sum(), b)
    (rough,) = torch.autograd.grad(fixed_point(cell, loose, z.detach(), weight, b).square().sum(), b)
    assert (rough - exact).norm() <= 5 * tol * exact.norm()
