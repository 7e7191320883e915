"""Implicit differentiation of a fixed point to any order, without storing iterations.

    z* = h(z*, inputs):    dl/d(inputs) = lambda^T dh/d(inputs),    lambda = (dh/dz)^T lambda + dl/dz

The adjoint equation is itself a fixed point whose inputs are z*, dl/dz and the inputs of h, so the same operator
differentiates it: derivatives of second and higher order follow by recursion.
Bai, Kolter and Koltun, NeurIPS 2019 (arXiv 1909.01377).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Map

LinearSolver = Callable[[Map, Tensor], Tensor]


class _FixedPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Callable[..., Tensor], solver: LinearSolver, z_star: Tensor, *inputs: Tensor) -> Tensor:
        z = z_star.detach().clone()
        ctx.h, ctx.solver = h, solver
        ctx.save_for_backward(z, *inputs)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        z, *inputs = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        create_graph = torch.is_grad_enabled()  # the result has to be differentiable again
        adjoint = _adjoint(ctx.h, ctx.solver, z, inputs, gradient)
        with torch.enable_grad():
            if create_graph:
                adjoint = _apply(_adjoint_map(ctx.h), ctx.solver, adjoint, gradient, z, *inputs)
                # views cut the dependence of z on the inputs for this product, and keep it for the next derivative
                inputs = [x.view_as(x) if need else x for x, need in zip(inputs, needed, strict=True)]
            else:
                z = z.detach()
                inputs = [x.detach().requires_grad_(need) for x, need in zip(inputs, needed, strict=True)]
            targets = [x for x, need in zip(inputs, needed, strict=True) if need]
            found = torch.autograd.grad(
                ctx.h(z, *inputs), targets, adjoint, create_graph=create_graph, allow_unused=True
            )
        left = iter(found)
        return (None, None, None, *(next(left) if need else None for need in needed))


def _apply(h: Callable[..., Tensor], solver: LinearSolver, z_star: Tensor, *inputs: Tensor) -> Tensor:
    result: Tensor = _FixedPoint.apply(h, solver, z_star, *inputs)  # type: ignore[no-untyped-call]
    return result


def _adjoint(
    h: Callable[..., Tensor], solver: LinearSolver, z: Tensor, inputs: list[Tensor], gradient: Tensor
) -> Tensor:
    """Solve lambda = (dh/dz)^T lambda + gradient: one graph, one vector-Jacobian product per iteration."""
    with torch.enable_grad():
        free = z.detach().requires_grad_()
        value = h(free, *(x.detach() for x in inputs))
    start = gradient.detach()
    if not value.requires_grad:  # h does not depend on z
        return start

    def step(adjoint: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(value, free, adjoint, retain_graph=True, allow_unused=True)
        return start if product is None else start + product

    return solver(step, start)


def _adjoint_map(h: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Map (lambda, gradient, z, *inputs) -> (dh/dz)^T lambda + gradient, differentiable in all arguments."""

    def adjoint_map(adjoint: Tensor, gradient: Tensor, z: Tensor, *inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            free = z.view_as(z) if z.requires_grad else z.detach().requires_grad_()
            value = h(free, *inputs)
            if not value.requires_grad:
                return gradient
            (product,) = torch.autograd.grad(value, free, adjoint, create_graph=True, allow_unused=True)
        return gradient if product is None else gradient + product

    return adjoint_map


def fixed_point(h: Callable[..., Tensor], solver: LinearSolver, z_star: Tensor, *inputs: Tensor) -> Tensor:
    """Fixed point z* = h(z*, *inputs), differentiable in ``inputs`` to any order.

    Args:
        h: the map, h(z, *inputs) -> tensor of the shape of z, differentiable. Only its arguments get gradients: pass
            parameters in ``inputs`` (see torch.func.functional_call).
        solver: solver(f, start) -> solution of x = f(x) for the linear maps of the adjoint equations, for instance
            ``lambda f, x: solve_linear(f, x, solver=Anderson(), tol=1e-6, max_steps=50).value``. The accuracy of the
            derivatives is that of this solver and of ``z_star``.
        z_star: the solution, from `solve`; no gradient flows into it.
        inputs: tensors that z* depends on.

    Returns:
        ``z_star`` with a gradient.
    """
    return _apply(h, solver, z_star, *inputs)
