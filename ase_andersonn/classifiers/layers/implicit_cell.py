"""Implicit layer: fixed point of the equilibrium cell, differentiable in injection and weights.

    z* = f(z*; u, v, a, W),    λ = (∂f/∂z)ᵀ λ + ∂l/∂z*,    dl = ⟨λ, df at fixed z*⟩

With `x = v + W₁ [m ; z*]` and `s = φ'(x) ∘ (W₂ᵀ λ)`, `∂l/∂u = λ`, `∂l/∂v = s`, `∂l/∂a_ik = (W₁ᵀ s)_i ∘ (W₀ z)_k`, and
the matrices have outer products. Sums over neighbours are transposed by the reversed edges, without scatter operations;
memory does not grow with iterations. First derivatives only. Bai, Kolter and Koltun, arXiv 1909.01377.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ase_andersonn.nn.blocks import lipschitz_silu
from ase_andersonn.nn.equilibrium_cell import (
    CellWeights,
    Injection,
    reverse_gates,
)
from ase_andersonn.solvers import Segments, Solution, Solver, solve


@dataclass
class CellSolver:
    """Solver settings of a cell's fixed point and adjoint, and the solutions of the last solves.

    Args:
        solver: fixed-point method.
        tol: relative residual of each structure.
        max_steps: largest number of evaluations.
        apply, vjp, cotangents: methods of the cell and the function of this file, or compiled ones.
        adjoint_solved: callback with the solution of the adjoint.

    Attributes:
        forward, backward: the last solutions of the fixed point and of the adjoint.
    """

    solver: Solver
    tol: float
    max_steps: int = 60
    apply: Callable[..., Tensor] = CellWeights.apply
    vjp: Callable[..., Tensor] = CellWeights.vjp
    cotangents: Callable[..., tuple[Tensor, ...]] | None = None
    adjoint_solved: Callable[[Solution], None] | None = None
    forward: Solution | None = None
    backward: Solution | None = None

    def find(self, f: Callable[[Tensor], Tensor], start: Tensor, segments: Segments) -> Solution:
        """Solve for the fixed point of a map."""
        return solve(f, start, solver=self.solver, tol=self.tol, max_steps=self.max_steps, segments=segments)


def equilibrium(
    injection: Injection,
    cell: CellWeights,
    neighbors: Tensor,
    reverse: Tensor,
    segments: Segments,
    solver: CellSolver,
) -> Tensor:
    """Fixed point `z* = f(z*)` [n_atoms, n_channels] of scalar features, once differentiable.

    Args:
        injection: injection of the geometry; gradients reach it.
        cell: the cell of scalars alone; gradients reach its matrices.
        neighbors, reverse: [n_atoms, n_neighbors], as in `structures.graph.Graph`.
        segments: structure of each atom.
        solver: solver settings, which also store the last solutions.
    """
    matrices = (matrix for (matrix,) in cell)
    z: Tensor = _Equilibrium.apply(solver, segments, neighbors, reverse, *injection, *matrices)  # type: ignore[no-untyped-call]
    return z


class _Equilibrium(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, solver: CellSolver, segments: Segments, neighbors: Tensor, reverse: Tensor, *given: Tensor
    ) -> Tensor:
        injection, cell = Injection(*given[:3]), CellWeights.of_scalars(*given[3:])
        solver.forward = solver.find(lambda z: solver.apply(cell, z, injection, neighbors), injection.u, segments)
        ctx.solver, ctx.segments = solver, segments
        ctx.save_for_backward(solver.forward.value, neighbors, reverse, *given)
        return solver.forward.value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        z, neighbors, reverse, *given = ctx.saved_tensors
        injection, cell = Injection(*given[:3]), CellWeights.of_scalars(*given[3:])
        solver: CellSolver = ctx.solver
        _, slope = cell.linearize(z, injection, neighbors)
        backward = reverse_gates(injection.gates, reverse)
        solver.backward = solver.find(
            lambda y: gradient + solver.vjp(cell, y, slope, backward, neighbors), gradient, ctx.segments
        )
        if solver.adjoint_solved is not None:
            solver.adjoint_solved(solver.backward)
        found = solver.cotangents or cotangents
        adjoint = solver.backward.value
        return (None, None, None, None, *found(z, adjoint, slope, injection, backward, neighbors, cell))


def cotangents(
    z: Tensor,
    adjoint: Tensor,
    slope: Tensor,
    injection: Injection,
    backward: Tensor,
    neighbors: Tensor,
    cell: CellWeights,
) -> tuple[Tensor, ...]:
    """Derivatives in `u`, `v`, gates, `W₀`, `W₁` and `W₂`; arguments as in `_Equilibrium.backward`."""
    sent = cell.send(z)
    messages = cell.sum_messages(injection.gates, sent, neighbors)
    active = lipschitz_silu(cell.preactivation(z, messages, injection.v))
    inner, to_messages = cell.injection_vjp(adjoint, slope)
    gates = cell.gates_vjp(to_messages, sent, injection.gates, neighbors)
    to_send = cell.sum_messages(backward, to_messages, neighbors).T @ z
    return adjoint, inner, gates, to_send, inner.T @ torch.cat([messages, z], -1), adjoint.T @ active


@torch.no_grad()
def spectral_radius(
    z: Tensor, injection: Injection, cell: CellWeights, neighbors: Tensor, segments: Segments, steps: int = 120
) -> Tensor:
    """Spectral radius `ρ(∂f/∂z)` of each problem at `z` by power iteration, float64 [n].

    With complex pairs of eigenvalues the growth of the vector oscillates, so its logarithm is averaged over the last
    third.

    Args:
        z: [n_atoms, n_channels].
        injection, cell, neighbors, segments: as in `equilibrium`.
        steps: number of products with the Jacobian.
    """
    _, slope = cell.linearize(z, injection, neighbors)
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    growth = []
    for _ in range(steps):
        v = cell.jvp(v, slope, injection.gates, neighbors)
        norm = segments.total(v.square().sum(1, keepdim=True)).sqrt().clamp(min=torch.finfo(v.dtype).tiny)
        v = v / segments.spread(norm).to(v)
        growth.append(norm[:, 0].log())
    return torch.stack(growth[-(steps // 3) :]).mean(0).exp()
