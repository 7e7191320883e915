"""Energy, forces and stress of an equilibrium model, and the exact gradients of all three in the weights.

With the solution `z`, the adjoint `λ = (∂f/∂z)ᵀ λ + ∂E/∂z` and the equilibrium energy `L = E(z) + ⟨λ, f(z) − z⟩`, which is
stationary in both:

- the energy is `L`, with an error quadratic in the residuals;
- the force is `−∂L/∂x` at fixed `z` and `λ`: one backward pass through one application of `f`;
- a loss of the forces with incoming gradient `g` is a derivative of `L` along the displacement `ẋ = −g`. Its gradient in the
  weights needs the tangents `μ = dz/dx ẋ` and `ν = dλ/dx ẋ`, two more linear fixed points, and is the plain gradient of the
  directional derivative `dL(ẋ, μ, ν)`. Nothing is unrolled; memory does not grow with the iterations.

Everything is written in the edge vectors `d_ij = r_j − r_i`: forces and stress are sums of `∂L/∂d`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..backends import CompileMode
from ..inputs.graph import Graph
from ..nn.deq import CellWeights, Injection, reverse_gates
from ..solvers.anderson import Anderson
from ..solvers.base import Segments, Solution, Solver, solve
from .base import EnergyModel
from .operators import Operators, operators_of

MAX_STEPS = 60
REFINEMENTS = 4
"""How often the residual tolerance is tightened when the estimated energy error is still above `tol`."""


@dataclass(frozen=True)
class Start:
    """Where the solves begin.

    Attributes:
        z: guess of the features [n_atoms, n_channels].
        adjoint: guess of λ [n_atoms, n_channels], eV.
        state: solver state of an earlier, nearby solve for `z`.
        adjoint_state: of an earlier solve for λ.
    """

    z: Tensor | None = None
    adjoint: Tensor | None = None
    state: Any = None
    adjoint_state: Any = None


def cold_start(injection: Tensor) -> Start:
    """A start that depends on the geometry alone."""
    return Start()


@dataclass(frozen=True)
class Equilibrium:
    """The solved features and adjoint of a graph, and how they were found.

    Attributes:
        z: features [n_atoms, n_channels].
        adjoint: λ [n_atoms, n_channels], eV.
        injection: the geometry's part of the cell.
        lagrangian: `L_i`, less the reference energies [n_atoms], eV.
        error: `|⟨λ, f(z) − z⟩|` of each structure [n_systems], eV/atom.
        forward: solution object of the features.
        backward: solution object of the adjoint.
        evaluations: applications of the cell and of its transpose.
        backend: how the model's functions run, `"inductor"` or `"eager"`.
    """

    z: Tensor
    adjoint: Tensor
    injection: Injection
    lagrangian: Tensor
    error: Tensor
    forward: Solution
    backward: Solution
    evaluations: tuple[int, int]
    backend: str

    @property
    def converged(self) -> Tensor:
        """Of each structure, for both solves [n_systems]."""
        return self.forward.converged & self.backward.converged


@dataclass(frozen=True)
class Evaluation:
    """What a model says of a graph.

    Attributes:
        energy: [n_systems], eV, float64.
        energies: of the atoms [n_atoms], eV, float64.
        forces: [n_atoms, 3], eV/Å, or None.
        stress: `(1/V) ∂E/∂ε` [n_systems, 3, 3], eV/Å³, or None; nan where there is no volume.
        stresses: each atom's part of the stress [n_atoms, 3, 3], eV/Å³, or None.
        n_per_system: atoms of each structure [n_systems].
        equilibrium: the solution and its statistics.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    stress: Tensor | None
    stresses: Tensor | None
    n_per_system: Tensor
    equilibrium: Equilibrium


def evaluate(
    model: EnergyModel,
    graph: Graph,
    *,
    forces: bool = False,
    stress: bool = False,
    tol: float = 1e-6,
    solver: Solver = Anderson(),
    max_steps: int = MAX_STEPS,
    begin: Callable[[Tensor], Start] = cold_start,
    compile: CompileMode = False,
) -> Evaluation:
    """Energy, forces and stress of every structure in a graph.

    Where gradients are enabled and the model's weights require them, `energy`, `forces` and `stress` are differentiable in
    the weights, exactly.

    Args:
        model: an equilibrium model.
        graph: structures.
        forces: whether forces are wanted.
        stress: whether stress is wanted.
        tol: energy tolerance, eV/atom. The relative residuals are solved to `√tol`, since the energy's error is quadratic in
            them, and further while the estimated error `|⟨λ, f(z) − z⟩|` is above `tol`.
        solver: fixed-point solver of features and adjoint.
        max_steps: most applications of the cell in one solve.
        begin: gives the start of the solves for an injection `u` [n_atoms, n_channels].
        compile: whether the model's functions are compiled, as in `backends.compile_function`.

    Raises:
        ValueError: for elements that the model does not know.
    """
    species = model.species(graph.numbers)
    operators = operators_of(model, graph.vectors.device, compile)
    options = _Options(tol, solver, max_steps, begin)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if parameters and torch.is_grad_enabled():
        box: list[Equilibrium] = []
        job = _Job(model, graph, species, operators, options, stress, tuple(parameters), box)
        energy, force, sigma = _Differentiable.apply(job, *parameters.values())
        equilibrium = box[0]
        energies = _energies(model, species, equilibrium)
        return Evaluation(energy, energies, force if forces else None, sigma if stress else None, None, graph.n_per_system, equilibrium)
    with torch.no_grad():
        weights = model.cell_weights()
        equilibrium = _solve(model, graph, species, operators, weights, options)
        energies = _energies(model, species, equilibrium)
        if not (forces or stress):
            return Evaluation(_per_system(energies, graph), energies, None, None, None, graph.n_per_system, equilibrium)
        gradient = operators.edge_gradient(graph, species, equilibrium.z, equilibrium.adjoint, weights)
        stresses = stresses_from(gradient, graph) if stress else None
        return Evaluation(
            energy=_per_system(energies, graph),
            energies=energies,
            forces=forces_from(gradient, graph) if forces else None,
            stress=None if stresses is None else _per_system(stresses, graph),
            stresses=stresses,
            n_per_system=graph.n_per_system,
            equilibrium=equilibrium,
        )


def forces_from(gradient: Tensor, graph: Graph) -> Tensor:
    """`F_i = Σ_k (∂L/∂d_ik − ∂L/∂d_ki)` [n_atoms, 3], eV/Å.

    Args:
        gradient: `∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å; zero in padded places.
        graph: structures.
    """
    return (gradient - gradient.flatten(0, 1)[graph.reverse]).sum(1)


def stresses_from(gradient: Tensor, graph: Graph) -> Tensor:
    """`σ_i = (1/V) sym Σ_k d_ik ⊗ ∂L/∂d_ik` [n_atoms, 3, 3], eV/Å³; their sum is the stress."""
    virial = graph.vectors.transpose(1, 2) @ gradient
    return 0.5 * (virial + virial.transpose(1, 2)) / graph.volume[graph.system][:, None, None]


@dataclass(frozen=True)
class _Options:
    tol: float
    solver: Solver
    max_steps: int
    begin: Callable[[Tensor], Start]


def _segments(graph: Graph) -> Segments | None:
    return None if graph.n_systems == 1 else Segments(graph.system, graph.n_systems)


def _per_system(rows: Tensor, graph: Graph) -> Tensor:
    if graph.n_systems == 1:
        return rows.sum(0, keepdim=True)
    return rows.new_zeros(graph.n_systems, *rows.shape[1:]).index_add(0, graph.system, rows)


def _energies(model: EnergyModel, species: Tensor, equilibrium: Equilibrium) -> Tensor:
    return equilibrium.lagrangian.double() + model.reference_energies(species)


def _solve(
    model: EnergyModel,
    graph: Graph,
    species: Tensor,
    operators: Operators,
    weights: CellWeights,
    options: _Options,
) -> Equilibrium:
    """Features, adjoint and equilibrium energy, tightened until the estimated energy error is below the tolerance."""
    neighbors = graph.neighbors
    injection = operators.encode(graph, species)
    reversed_gates = reverse_gates(injection.gates, graph.reverse)
    pair = model.pair_energies(graph.vectors, species, species[neighbors], graph.mask)
    segments = _segments(graph)
    check_every = 1 if graph.vectors.device.type == "cpu" else 3
    start = options.begin(injection.u)
    residual_tol, evaluations = math.sqrt(options.tol), [0, 0]
    for refinement in range(REFINEMENTS + 1):
        settings: dict[str, Any] = dict(
            solver=options.solver,
            tol=residual_tol,
            max_steps=options.max_steps,
            segments=segments,
            check_every=check_every,
        )
        z0 = injection.u if start.z is None else start.z
        forward = solve(lambda z: operators.cell(z, injection, neighbors, weights), z0, state=start.state, **settings)
        z = forward.value
        slope = operators.slope(z, injection, neighbors, weights)
        source = operators.readout_gradient(z, species)
        backward = solve(
            lambda a: source + operators.pull(a, slope, reversed_gates, neighbors, weights),
            source if start.adjoint is None else start.adjoint,
            state=start.adjoint_state,
            **settings,
        )
        adjoint = backward.value
        evaluations[0] += forward.evaluations + 1
        evaluations[1] += backward.evaluations
        correction = (adjoint * (operators.cell(z, injection, neighbors, weights) - z)).sum(-1)
        error = _per_system(correction.double(), graph).abs() / graph.n_per_system
        equilibrium = Equilibrium(
            z=z,
            adjoint=adjoint,
            injection=injection,
            lagrangian=model.readout(z, species) + pair + correction,
            error=error,
            forward=forward,
            backward=backward,
            evaluations=(evaluations[0], evaluations[1]),
            backend=operators.cell.backend,
        )
        floor = 10 * torch.finfo(z.dtype).eps
        if refinement == REFINEMENTS or not equilibrium.converged.all() or residual_tol <= floor:
            break
        if bool((error <= options.tol).all()):
            break
        residual_tol = max(0.1 * residual_tol, floor)
        start = Start(z, adjoint, forward.state, backward.state)
    return equilibrium


@dataclass(frozen=True)
class _Job:
    model: EnergyModel
    graph: Graph
    species: Tensor
    operators: Operators
    options: _Options
    stress: bool
    names: tuple[str, ...]
    box: list[Equilibrium]


class _Differentiable(torch.autograd.Function):
    """Energy, forces and stress as functions of the weights."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        graph, species, operators = job.graph, job.species, job.operators
        weights = job.model.cell_weights()
        equilibrium = _solve(job.model, graph, species, operators, weights, job.options)
        gradient = operators.edge_gradient(graph, species, equilibrium.z, equilibrium.adjoint, weights)
        job.box.append(equilibrium)
        ctx.job, ctx.weights, ctx.equilibrium, ctx.parameters = job, weights, equilibrium, parameters
        stress = _per_system(stresses_from(gradient, graph), graph) if job.stress else None
        energies = _energies(job.model, species, equilibrium)
        return _per_system(energies, graph), forces_from(gradient, graph), stress

    @staticmethod
    def backward(ctx: Any, g_energy: Tensor, g_forces: Tensor, g_stress: Tensor | None) -> Any:  # type: ignore[override]
        job, weights, eq = ctx.job, ctx.weights, ctx.equilibrium
        graph, species, operators, neighbors = job.graph, job.species, job.operators, job.graph.neighbors
        direction = edge_direction(graph, g_forces, g_stress)
        tangent, adjoint_tangent = _tangents(job, weights, eq, direction)
        grads = operators.weight_gradient(
            dict(zip(job.names, ctx.parameters, strict=True)),
            (graph.vectors, eq.z, eq.adjoint),
            (direction, tangent, adjoint_tangent),
            g_energy.to(eq.z.dtype)[graph.system],
            neighbors,
            species,
            graph.mask,
        )
        return None, *(grads[name] for name in job.names)


def edge_direction(graph: Graph, g_forces: Tensor, g_stress: Tensor | None) -> Tensor:
    """Change of the edge vectors along which `L` changes by `⟨g_F, F⟩ + ⟨g_σ, σ⟩` [n_atoms, n_neighbors, 3].

    `ḋ_ij = g_F,i − g_F,j + (1/V) sym(g_σ) d_ij`

    Args:
        graph: structures.
        g_forces: incoming gradient of the forces [n_atoms, 3].
        g_stress: incoming gradient of the stress [n_systems, 3, 3], or None.
    """
    direction = g_forces[:, None] - g_forces[graph.neighbors]
    if g_stress is not None:
        strain = 0.5 * (g_stress + g_stress.transpose(1, 2)) / graph.volume[:, None, None]
        strain = torch.where(torch.isfinite(graph.volume)[:, None, None], strain, 0.0)
        direction = direction + graph.vectors @ strain[graph.system]
    return direction


def _tangents(job: _Job, weights: CellWeights, eq: Equilibrium, direction: Tensor) -> tuple[Tensor, Tensor]:
    """`μ = dz/dx ẋ` and `ν = dλ/dx ẋ`, two linear fixed points."""
    graph, species, operators, neighbors = job.graph, job.species, job.operators, job.graph.neighbors
    injection, gates = eq.injection, eq.injection.gates
    geometry = operators.encode_tangent(graph.vectors, direction, species, species[neighbors], graph.mask)
    slope = operators.slope(eq.z, injection, neighbors, weights)
    sent = (geometry.gates * (eq.z @ weights.send.T)[neighbors]).sum(1)
    inner = torch.cat([sent, torch.zeros_like(eq.z)], -1) @ weights.mix.T + geometry.v
    source = geometry.u + (slope * inner) @ weights.out.T
    settings: dict[str, Any] = dict(
        solver=job.options.solver,
        tol=math.sqrt(job.options.tol),
        max_steps=job.options.max_steps,
        segments=_segments(graph),
        check_every=1 if direction.device.type == "cpu" else 3,
    )
    tangent = solve(lambda t: source + operators.push(t, slope, gates, neighbors, weights), source, **settings).value
    adjoint_source = operators.adjoint_source(
        eq.z, tangent, injection, geometry, eq.adjoint, neighbors, graph.reverse, species, weights
    )
    reversed_gates = reverse_gates(gates, graph.reverse)
    adjoint_tangent = solve(
        lambda t: adjoint_source + operators.pull(t, slope, reversed_gates, neighbors, weights),
        adjoint_source,
        **settings,
    ).value
    return tangent, adjoint_tangent

