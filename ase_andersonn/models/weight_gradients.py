"""Exact gradients of energy, forces and stress in the weights, with memory that does not grow with the iterations.

A loss of the forces with incoming gradient `g` is a derivative of the equilibrium energy `L` along the displacement
`ẋ = −g`; stress is a derivative along a strain. The gradient in the weights of such a derivative needs the tangents of
the solution along it, two linear fixed points,

    μ = dz/dx ẋ = (∂f/∂z) μ + (∂f/∂x) ẋ,    ν = dλ/dx ẋ = (∂f/∂z)ᵀ ν + d/dt ∂L/∂z (x + tẋ, z + tμ)

and is then the plain gradient of the directional derivative `dL(ẋ, μ, ν)` at fixed `x`, `z`, `λ` and tangents. In this
form the adjoint method of Deep Equilibrium Models (Bai et al., arXiv 1909.01377) holds for losses of derivatives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ase_andersonn.inputs.graph import Graph
from ase_andersonn.nn.deq import reverse_gates
from ase_andersonn.solvers.base import TINY, Solution
from ase_andersonn.solvers.gmres import solve_linear

from .base import EnergyModel
from .equilibrium import Equilibrium, SolveOptions, per_system
from .operators import Operators
from .potential import ConvergenceError
from .training_functions import Solved, Topology, tangent_source

TANGENT_STEPS = (8, 8)
"""Plain steps for both tangents; what they do not reach goes to the solver."""


class Observables(NamedTuple):
    """Energy [n_systems], forces [n_atoms, 3], stress [n_systems, 3, 3], atoms' stresses [n_atoms, 3, 3]."""

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None
    stresses: Tensor | None


@dataclass(frozen=True)
class _Job:
    """What the derivative has to know beside the weights."""

    model: EnergyModel
    graph: Graph
    species: Tensor
    operators: Operators
    options: SolveOptions
    observe: Callable[[], tuple[Equilibrium, Observables]]
    names: tuple[str, ...]
    found: list[tuple[Equilibrium, Observables]]


def differentiable(
    model: EnergyModel,
    graph: Graph,
    species: Tensor,
    operators: Operators,
    options: SolveOptions,
    observe: Callable[[], tuple[Equilibrium, Observables]],
) -> tuple[Equilibrium, Observables]:
    """What `observe` returns, with energy, forces and stress differentiable in the weights that require it."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    job = _Job(model, graph, species, operators, options, observe, tuple(parameters), [])
    energy, forces, stress = _Observe.apply(job, *parameters.values())  # type: ignore[no-untyped-call]
    equilibrium, plain = job.found.pop()
    return equilibrium, Observables(energy, forces, stress, plain.stresses)


class _Observe(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, *parameters: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        equilibrium, seen = job.observe()
        job.found.append((equilibrium, seen))
        ctx.job, ctx.equilibrium = job, equilibrium
        ctx.save_for_backward(*parameters)  # refuses weights that were changed in place before the backward pass
        return seen.energy, seen.forces, seen.stress

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        g_energy, g_forces, g_stress = grad_outputs
        job, found = ctx.job, ctx.equilibrium
        direction = edge_direction(job.graph, g_forces, g_stress)
        topology = Topology(job.species, job.graph.neighbors, job.graph.mask, job.graph.reverse)
        gradients = job.operators.weight_gradient(
            dict(zip(job.names, ctx.saved_tensors, strict=True)),
            (job.graph.vectors, found.z, found.adjoint),
            (direction, *_tangents(job, found, direction, topology)),
            g_energy.to(found.z.dtype)[job.graph.system],
            topology,
        )
        return None, *(gradients[name] for name in job.names)


def edge_direction(graph: Graph, g_forces: Tensor | None, g_stress: Tensor | None) -> Tensor:
    """Change of the edge vectors along which `L` changes by `⟨g_F, F⟩ + ⟨g_σ, σ⟩` [n_atoms, n_neighbors, 3].

    `ḋ_ij = g_F,i − g_F,j + (1/V) sym(g_σ) d_ij`

    Args:
        graph: structures.
        g_forces: incoming gradient of the forces [n_atoms, 3], or None.
        g_stress: incoming gradient of the stress [n_systems, 3, 3], or None.
    """
    direction = torch.zeros_like(graph.vectors)
    if g_forces is not None:
        direction = g_forces[:, None] - g_forces[graph.neighbors]
    if g_stress is not None:
        strain = 0.5 * (g_stress + g_stress.transpose(1, 2)) / graph.volume[:, None, None]
        strain = torch.where(torch.isfinite(graph.volume)[:, None, None], strain, 0.0)
        direction = direction + graph.vectors @ strain[graph.system]
    return direction


def _tangents(job: _Job, found: Equilibrium, direction: Tensor, topology: Topology) -> tuple[Tensor, Tensor]:
    """`μ = dz/dx ẋ` and `ν = dλ/dx ẋ` [n_atoms, width]: plain steps, and what these do not reach from the solver."""
    graph, operators, neighbors = job.graph, job.operators, topology.neighbors
    injection, slope, weights = found.encoding.injection, found.slope, found.weights
    solved = Solved(found.z, found.adjoint, slope, injection, weights)
    plain = operators.tangents(graph.vectors, direction, topology, solved, TANGENT_STEPS)
    left, size = per_system(plain.norms.double(), graph).unflatten(1, (2, 2)).unbind(2)
    if bool((left <= job.options.tol * (size + TINY)).all()):
        return plain.z, plain.adjoint
    geometry = operators.training.encode_tangent(graph.vectors, direction, topology)
    source = tangent_source(geometry, solved, neighbors)
    settings = job.options.settings(graph)
    tangent = _reached(
        solve_linear(
            lambda t: source + operators.push(t, slope, injection.gates, neighbors, weights), plain.z, **settings
        )
    )
    adjoint_source = operators.training.adjoint_source(tangent, geometry, solved, topology)
    gates = reverse_gates(injection.gates, graph.reverse)
    adjoint_tangent = _reached(
        solve_linear(
            lambda t: adjoint_source + operators.pull(t, slope, gates, neighbors, weights), plain.adjoint, **settings
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
