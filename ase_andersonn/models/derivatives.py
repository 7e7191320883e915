"""Energy, forces and stress of an equilibrium model.

The equilibrium energy `L` is stationary in the features `z` and the adjoint `λ`, so the force is `−∂L/∂x` at fixed `z`
and `λ`: one backward pass through one application of the cell. Everything is written in the edge vectors `d_ij = r_j −
r_i`: forces and stress are sums of `∂L/∂d`. Their exact gradients in the weights are in `weight_gradients.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_andersonn.backends import CompileMode
from ase_andersonn.inputs.graph import Graph
from ase_andersonn.nn.deq import send
from ase_andersonn.solvers.base import Solver

from .base import EnergyModel
from .equilibrium import (
    ANDERSON,
    MAX_STEPS,
    Equilibrium,
    SolveOptions,
    Start,
    cold_start,
    find_equilibrium,
    per_system,
)
from .operators import Linearized, Operators, operators_of
from .weight_gradients import Observables, differentiable


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
    solver: Solver = ANDERSON,
    max_steps: int = MAX_STEPS,
    begin: Callable[[Tensor], Start] = cold_start,
    sweep: bool = False,
    compile: CompileMode = False,
) -> Evaluation:
    """Energy, forces and stress of every structure in a graph.

    Where gradients are enabled and the model's weights require them, `energy`, `forces` and `stress` are differentiable
    in the weights, exactly.

    Args:
        model: an equilibrium model.
        graph: structures.
        forces: whether forces are wanted.
        stress: whether stress is wanted.
        tol: energy tolerance, eV/atom. The relative residuals are solved to `√tol`, since the energy's error is
            quadratic in them, and further while the estimated error `|⟨λ, f(z) − z⟩|` is above `tol`.
        solver: fixed-point solver of features and adjoint.
        max_steps: most applications of the cell in one solve.
        begin: gives the start of the solves for an injection `u` [n_atoms, n_channels].
        sweep: whether to take plain steps first, see `SolveOptions`.
        compile: whether the model's functions are compiled, as in `backends.compile_function`.

    Raises:
        ValueError: for elements that the model does not know.
    """
    species = model.species(graph.numbers)
    operators = operators_of(model, graph.vectors.device, compile)
    options = SolveOptions(tol, solver, max_steps, begin, sweep)

    def observe() -> tuple[Equilibrium, Observables]:
        found = find_equilibrium(graph, species, operators, options, derivatives=forces or stress)
        gradient = _edge_gradient(graph, species, operators, found) if forces or stress else None
        return found, observables(model, graph, species, found, gradient, forces=forces, stress=stress)

    if torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()):
        equilibrium, seen = differentiable(model, graph, species, operators, options, observe)
    else:
        with torch.no_grad():
            equilibrium, seen = observe()
    return evaluation_of(model, graph, species, equilibrium, seen)


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


def _energies(model: EnergyModel, species: Tensor, equilibrium: Equilibrium) -> Tensor:
    return equilibrium.lagrangian.double() + model.reference_energies(species)


def _edge_gradient(graph: Graph, species: Tensor, operators: Operators, found: Equilibrium) -> Tensor:
    state = Linearized(send(found.z, found.weights), found.slope, found.weights)
    return operators.edge_gradient(graph, species, found.encoding, state, found.adjoint)


def observables(
    model: EnergyModel,
    graph: Graph,
    species: Tensor,
    found: Equilibrium,
    gradient: Tensor | None,
    *,
    forces: bool,
    stress: bool,
) -> Observables:
    """Energy and, of `∂L/∂d` [n_atoms, n_neighbors, 3] where it is given, forces and stress as far as wanted."""
    energy = per_system(_energies(model, species, found), graph)
    if gradient is None:
        return Observables(energy, None, None, None)
    stresses = stresses_from(gradient, graph) if stress else None
    return Observables(
        energy=energy,
        forces=forces_from(gradient, graph) if forces else None,
        stress=None if stresses is None else per_system(stresses, graph),
        stresses=stresses,
    )


def evaluation_of(
    model: EnergyModel, graph: Graph, species: Tensor, equilibrium: Equilibrium, seen: Observables
) -> Evaluation:
    """What was seen of a solution, with the atoms' energies."""
    return Evaluation(
        energy=seen.energy,
        energies=_energies(model, species, equilibrium),
        forces=seen.forces,
        stress=seen.stress,
        stresses=seen.stresses,
        n_per_system=graph.n_per_system,
        equilibrium=equilibrium,
    )
