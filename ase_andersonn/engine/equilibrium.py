"""The features of a structure at their fixed point, the adjoint, and the equilibrium energy that both make stationary.

    z = f(z),    λ = (∂f/∂z)ᵀ λ + ∂E/∂z,    L = E(z) + ⟨λ, f(z) − z⟩

The error of `L` is quadratic in the residuals, and `|⟨λ, f(z) − z⟩|` estimates it at no cost.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ase_andersonn.nn.equilibrium_cell import EquilibriumCell, reverse_gates
from ase_andersonn.solvers.anderson import Anderson
from ase_andersonn.solvers.base import TINY, Counters, Segments, Solution, Solver, solve
from ase_andersonn.solvers.gmres import solve_linear
from ase_andersonn.structures.graph import Graph

from .compiled import CompiledModel, Linearized
from .encoding import Encoding
from .functions import PicardResult

ANDERSON = Anderson()
MAX_STEPS = 60
PICARD_STEPS = (7, 6)
"""Plain steps for the features and for the adjoint where they come first."""
REFINEMENTS = 12
"""How often the residual tolerance is tightened at most while the estimated energy error is above the tolerance."""
CHECK_EVERY_ON_GPU = 3
"""Evaluations between two readings of the residuals, so that the host does not wait for the device at each."""


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


COLD = Start()


def cold_start(_injection: Tensor) -> Start:
    """A start that depends on the geometry alone."""
    return COLD


@dataclass(frozen=True)
class SolveOptions:
    """How the fixed points are solved.

    Attributes:
        tol: energy tolerance, eV/atom; relative residuals are solved to `√tol` at first.
        solver: fixed-point method.
        max_steps: most applications of the cell in one solve.
        begin: gives the start of the solves for an injection `u` [n_atoms, n_channels].
        picard: whether to begin with Picard iterations, all in one function, and to call the solver only for the
            remainder: fastest where few steps are enough, and a solver's work is more than that of the cell.
    """

    tol: float = 1e-6
    solver: Solver = ANDERSON
    max_steps: int = MAX_STEPS
    begin: Callable[[Tensor], Start] = cold_start
    picard: bool = False

    def settings(self, graph: Graph, residual_tol: float | None = None) -> dict[str, Any]:
        """Arguments of `solvers.solve` for the features of a graph."""
        return {
            "solver": self.solver,
            "tol": math.sqrt(self.tol) if residual_tol is None else residual_tol,
            "max_steps": self.max_steps,
            "segments": None if graph.n_systems == 1 else Segments(graph.system, graph.n_systems),
            "check_every": 1 if graph.vectors.device.type == "cpu" else CHECK_EVERY_ON_GPU,
        }


@dataclass(frozen=True)
class Equilibrium:
    """The solved features and adjoint of a graph, and how they were found.

    Attributes:
        z: features [n_atoms, n_channels].
        adjoint: λ [n_atoms, n_channels], eV.
        encoding: the geometry's part.
        slope: derivative of the cell's nonlinearity at `z` [n_atoms, n_channels].
        cell: the cell.
        lagrangian: `L_i`, less the reference energies [n_atoms], eV.
        error: `|⟨λ, f(z) − z⟩|` of each structure [n_systems], eV/atom.
        forward: solution object of the features.
        backward: solution object of the adjoint.
        evaluations: applications of the cell and of its transpose.
        backend: how the model's functions run, `"inductor"` or `"eager"`.
    """

    z: Tensor
    adjoint: Tensor
    encoding: Encoding
    slope: Tensor
    cell: EquilibriumCell
    lagrangian: Tensor
    error: Tensor
    forward: Solution
    backward: Solution
    evaluations: tuple[int, int]
    backend: str

    def linearized(self) -> Linearized:
        """The cell at the solution."""
        return Linearized(self.cell.send(self.z), self.slope, self.cell)

    @property
    def converged(self) -> Tensor:
        """Of each structure, for both solves [n_systems]."""
        return self.forward.converged & self.backward.converged

    def within(self, tol: float) -> bool:
        """Whether all structures are converged, and known to `tol`, eV/atom."""
        return bool(self.converged.all()) and bool((self.error <= tol).all())


def per_system(rows: Tensor, graph: Graph) -> Tensor:
    """Sums of rows [n_atoms, ...] over the atoms of each structure [n_systems, ...]."""
    if graph.n_systems == 1:
        return rows.sum(0, keepdim=True)
    return rows.new_zeros(graph.n_systems, *rows.shape[1:]).index_add(0, graph.system, rows)


def solve_equilibrium(
    graph: Graph,
    species: Tensor,
    compiled: CompiledModel,
    options: SolveOptions,
    *,
    derivatives: bool,
) -> Equilibrium:
    """Features and adjoint, solved until residuals and estimated energy error are within the tolerance.

    Args:
        graph: structures.
        species: [n_atoms].
        operators: the model's functions.
        options: how to solve.
        derivatives: whether derivatives in the edge vectors will be asked for.
    """
    return solve_equilibrium_encoded(
        graph, species, compiled, compiled.encoder.encode(graph, species, keep=derivatives), options
    )


def solve_equilibrium_encoded(
    graph: Graph,
    species: Tensor,
    compiled: CompiledModel,
    encoding: Encoding,
    options: SolveOptions,
    focus: Tensor | None = None,
) -> Equilibrium:
    """`solve_equilibrium` where the geometry's part is known already; of the graph only its topology is used.

    Args:
        graph: structures.
        species: [n_atoms].
        operators: the model's functions.
        encoding: the geometry's part; its pair energies are added as they are.
        options: how to solve.
        focus: 1 for atoms whose readout is part of the energy, 0 for the others [n_atoms]; None for all.
    """
    problem = _Problem(graph, species, compiled, encoding, focus)
    residual_tol = math.sqrt(options.tol)
    floor = 10 * torch.finfo(encoding.pair.dtype).eps
    start, spent = options.begin(encoding.injection.u), (0, 0)
    earlier: Equilibrium | None = None
    if options.picard:
        earlier = problem.picard(start, residual_tol)
        if earlier.within(options.tol):
            return earlier
        start, spent = Start(earlier.z, earlier.adjoint), earlier.evaluations
    for _ in range(REFINEMENTS + 1):
        found = problem.solve(start, options.settings(graph, residual_tol), spent)
        if earlier is not None:
            found = _without_converged(found, earlier, graph, options.tol)
        done = not bool(found.converged.all()) or bool((found.error <= options.tol).all())
        if done or residual_tol <= floor:
            break
        earlier = found
        residual_tol = max(0.1 * residual_tol, floor)
        start = Start(found.z, found.adjoint, found.forward.state, found.backward.state)
        spent = found.evaluations
    return found


def _without_converged(found: Equilibrium, earlier: Equilibrium, graph: Graph, tol: float) -> Equilibrium:
    """What was found, but for structures whose error was small enough earlier: they stay as if they were alone."""
    done = earlier.converged.to(earlier.error.device) & (earlier.error <= tol)
    if not bool(done.any()):
        return found
    rows = done[graph.system][:, None]
    return replace(
        found,
        z=torch.where(rows, earlier.z, found.z),
        adjoint=torch.where(rows, earlier.adjoint, found.adjoint),
        slope=torch.where(rows, earlier.slope, found.slope),
        lagrangian=torch.where(rows[:, 0], earlier.lagrangian, found.lagrangian),
        error=torch.where(done, earlier.error, found.error),
    )


def equilibrium_from_picard(
    picard: PicardResult,
    graph: Graph,
    encoding: Encoding,
    cell: EquilibriumCell,
    residual_tol: float,
    backend: str,
) -> Equilibrium:
    """Result of so many Picard iterations, with its residuals; converged to `residual_tol` or not."""
    z_left, z_size, adjoint_left, adjoint_size, correction = per_system(picard.norms.double(), graph).unbind(-1)
    left, size = torch.stack((z_left, adjoint_left)), torch.stack((z_size, adjoint_size))
    residuals = (left / (size + TINY)).sqrt().cpu()
    forward, backward = (
        Solution(value, residual, torch.full(residual.shape, n), residual <= residual_tol, n, Counters())
        for value, residual, n in zip((picard.z, picard.adjoint), residuals, picard.steps, strict=True)
    )
    return Equilibrium(
        z=picard.z,
        adjoint=picard.adjoint,
        encoding=encoding,
        slope=picard.slope,
        cell=cell,
        lagrangian=picard.lagrangian + encoding.pair,
        error=correction.abs() / graph.n_per_system,
        forward=forward,
        backward=backward,
        evaluations=(forward.evaluations + 1, backward.evaluations),
        backend=backend,
    )


class _Problem:
    """The fixed-point equations of one graph."""

    def __init__(
        self, graph: Graph, species: Tensor, compiled: CompiledModel, encoding: Encoding, focus: Tensor | None
    ) -> None:
        self.graph, self.species, self.compiled, self.encoding = graph, species, compiled, encoding
        self.focus = focus
        self.cell = compiled.cell_weights()

    @cached_property
    def reversed_gates(self) -> Tensor:
        return reverse_gates(self.encoding.injection.gates, self.graph.reverse)

    def f(self, z: Tensor) -> Tensor:
        result: Tensor = self.compiled.apply(self.cell, z, self.encoding.injection, self.graph.neighbors)
        return result

    def picard(self, start: Start, residual_tol: float) -> Equilibrium:
        """Features and adjoint after Picard iterations, converged or not."""
        graph, injection, compiled = self.graph, self.encoding.injection, self.compiled
        z = injection.u if start.z is None else start.z
        topology = graph.neighbors, graph.reverse
        picard = compiled.picard(z, injection, *topology, self.cell, self.species, self.focus, PICARD_STEPS)
        return equilibrium_from_picard(picard, graph, self.encoding, self.cell, residual_tol, compiled.picard.backend)

    def solve(self, start: Start, settings: dict[str, Any], spent: tuple[int, int]) -> Equilibrium:
        """Features, then the adjoint at them, then the energy; `spent` counts what was applied before."""
        compiled, graph, cell = self.compiled, self.graph, self.cell
        injection, neighbors = self.encoding.injection, graph.neighbors
        forward = solve(self.f, injection.u if start.z is None else start.z, state=start.state, **settings)
        z = forward.value
        residual, slope, source, energies = compiled.linearize(z, injection, neighbors, cell, self.species)
        if self.focus is not None:
            source, energies = source * self.focus[:, None], energies * self.focus
        backward = solve_linear(
            lambda adjoint: source + compiled.vjp(cell, adjoint, slope, self.reversed_gates, neighbors),
            source if start.adjoint is None else start.adjoint,
            state=start.adjoint_state,
            **settings,
        )
        adjoint = backward.value
        correction = (adjoint * residual).sum(-1)
        return Equilibrium(
            z=z,
            adjoint=adjoint,
            encoding=self.encoding,
            slope=slope,
            cell=cell,
            lagrangian=energies + self.encoding.pair + correction,
            error=per_system(correction.double(), graph).abs() / graph.n_per_system,
            forward=forward,
            backward=backward,
            evaluations=(spent[0] + forward.evaluations + 1, spent[1] + backward.evaluations),
            backend=compiled.apply.backend,
        )
