"""Exact gradients of energy, forces and stress in the weights, with memory that does not grow with the iterations.

The geometry enters the cell through its injection `x` alone. Its derivatives, `∂x/∂d` in the edge vectors and both in
the weights, are left to back-propagation; here stands what the equilibrium adds. A loss of the forces has a gradient
`ẋ` in `∂L/∂x`, and the gradient in anything else of what follows is that of the derivative of the equilibrium energy
`L` along `ẋ`. It needs the tangents of the solution along it, two linear fixed points,

    μ = dz/dx ẋ = (∂f/∂z) μ + (∂f/∂x) ẋ,    ν = dλ/dx ẋ = (∂f/∂z)ᵀ ν + d/dt ∂L/∂z (x + tẋ, z + tμ)

and is then the plain gradient of the directional derivative `dL(ẋ, μ, ν)` at fixed `z`, `λ` and tangents. In this
form the adjoint method of Deep Equilibrium Models (Bai et al., arXiv 1909.01377) holds for losses of derivatives.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ase_andersonn.nn.equilibrium_cell import Injection, reverse_gates
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import ConvergenceError
from ase_andersonn.solvers.base import TINY, Solution
from ase_andersonn.solvers.gmres import solve_linear
from ase_andersonn.structures.graph import Graph

from .compiled import CompiledModel
from .encoding import Encoding
from .equilibrium import Equilibrium, SolveOptions, per_system, solve_equilibrium_encoded
from .training_functions import Solved, Topology, tangent_source

TANGENT_STEPS = (8, 8)
"""Plain steps for both tangents; what they do not reach goes to the solver."""


@dataclass(frozen=True)
class _Job:
    """Inputs of the derivative beside the weights."""

    graph: Graph
    species: Tensor
    compiled: CompiledModel
    options: SolveOptions
    names: tuple[str, ...]
    found: list[Equilibrium]

    @property
    def topology(self) -> Topology:
        return Topology(self.species, self.graph.neighbors, self.graph.reverse)


def differentiable(
    model: EnergyModel,
    graph: Graph,
    species: Tensor,
    compiled: CompiledModel,
    options: SolveOptions,
    *,
    derivatives: bool,
) -> tuple[Equilibrium, Tensor, Tensor | None]:
    """The equilibrium, `L` of each atom [n_atoms], eV, and `∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å, if wanted.

    Of the weights that require it, sums of `L` over the atoms of a structure, and `∂L/∂d`, have their exact gradients.
    An atom's own `L` has not: it is not stationary.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    vectors = graph.vectors.detach().requires_grad_(derivatives)
    *injection, pair = compiled.encode(vectors, species, graph.neighbors, graph.mask)
    job = _Job(graph, species, compiled, options, tuple(parameters), [])
    energies, *cotangents = _Equilibrium.apply(job, *injection, pair, *parameters.values())  # type: ignore[no-untyped-call]
    gradient = None
    if derivatives:
        (gradient,) = torch.autograd.grad(
            (*injection, pair), vectors, (*cotangents, torch.ones_like(pair)), create_graph=True
        )
    return job.found.pop(), energies, gradient


class _Equilibrium(torch.autograd.Function):
    """`L` of each atom and `∂L/∂x`, of the injection `x`, the pair energies and the weights."""

    @staticmethod
    def forward(
        ctx: Any, job: _Job, u: Tensor, v: Tensor, gates: Tensor, pair: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        injection = Injection(u.detach(), v.detach(), gates.detach())
        encoding = Encoding(injection, pair.detach())
        found = solve_equilibrium_encoded(job.graph, job.species, job.compiled, encoding, job.options)
        job.found.append(found)
        ctx.job, ctx.equilibrium = job, found
        ctx.set_materialize_grads(False)
        # Refuses what was changed in place before the backward pass.
        ctx.save_for_backward(u, v, gates, found.z, found.adjoint, *parameters)
        cotangent = job.compiled.injection_cotangent(job.graph, injection, found.linearized(), found.adjoint)
        return found.lagrangian.clone(), cotangent.u.clone(), cotangent.v, cotangent.gates

    @staticmethod
    def backward(ctx: Any, weights: Tensor | None, *changes: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "energy, forces and stress are differentiable in the weights once; leave out create_graph."
            )
        job: _Job = ctx.job
        u, v, gates, z, adjoint, *parameters = ctx.saved_tensors
        injection = Injection(u, v, gates)
        weights = torch.zeros_like(z[:, 0]) if weights is None else weights
        direction = Injection(
            *(torch.zeros_like(x) if dx is None else dx for x, dx in zip(injection, changes, strict=True))
        )
        tangents = torch.zeros_like(z), torch.zeros_like(z)
        if any(dx is not None for dx in changes):
            tangents = _tangents(job, ctx.equilibrium, direction)
        gradients, of_injection = job.compiled.weight_gradient(
            dict(zip(job.names, parameters, strict=True)),
            injection,
            (z, adjoint),
            (*direction, *tangents),
            weights,
            job.topology,
        )
        return None, *of_injection, weights, *(gradients[name] for name in job.names)


def _tangents(job: _Job, found: Equilibrium, direction: Injection) -> tuple[Tensor, Tensor]:
    """`μ = dz/dx ẋ` and `ν = dλ/dx ẋ` [n_atoms, width]: Picard iterations, then the solver."""
    graph, compiled, neighbors, topology = job.graph, job.compiled, job.graph.neighbors, job.topology
    injection, slope, cell = found.encoding.injection, found.slope, found.cell
    solved = Solved(found.z, found.adjoint, slope, injection, cell)
    plain = compiled.tangents(direction, topology, solved, TANGENT_STEPS)
    left, size = per_system(plain.norms.double(), graph).unflatten(1, (2, 2)).unbind(2)
    if bool((left <= job.options.tol * (size + TINY)).all()):
        return plain.z, plain.adjoint
    source = tangent_source(direction, solved, neighbors)
    settings = job.options.settings(graph)
    tangent = _reached(
        solve_linear(lambda t: source + compiled.jvp(cell, t, slope, injection.gates, neighbors), plain.z, **settings)
    )
    adjoint_source = compiled.training.adjoint_source(tangent, direction, solved, topology)
    gates = reverse_gates(injection.gates, graph.reverse)
    adjoint_tangent = _reached(
        solve_linear(
            lambda t: adjoint_source + compiled.vjp(cell, t, slope, gates, neighbors), plain.adjoint, **settings
        )
    )
    return tangent, adjoint_tangent


def _reached(found: Solution) -> Tensor:
    if not bool(found.converged.all()):
        raise ConvergenceError(
            f"the gradient in the weights was not reached: residual {float(found.residual.max()):.1e} of a tangent; "
            "ask for a larger tolerance, or for dtype='float64'."
        )
    value: Tensor = found.value
    return value
