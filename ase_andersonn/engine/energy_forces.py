"""Energy, forces and stress of an equilibrium model.

The equilibrium energy `L` is stationary in the features `z` and the adjoint `λ`, so the force is `−∂L/∂x` at fixed `z`
and `λ`: one backward pass through one application of the cell. Everything is written in the edge vectors `d_ij = r_j −
r_i`: forces and stress are sums of `∂L/∂d`. Their exact gradients in the weights are in `weight_gradients.py`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_andersonn.backends import CompileMode, own_torch_state
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers.base import Solver
from ase_andersonn.structures.graph import Graph

from .compiled import compiled_model
from .equilibrium import (
    ANDERSON,
    MAX_STEPS,
    Equilibrium,
    SolveOptions,
    Start,
    cold_start,
    per_system,
    solve_equilibrium,
)
from .weight_gradients import differentiable

ROUNDINGS = 5.0
"""Of the estimated rounding of an energy; see `rounding`."""
ALIKE = 3.0
"""How much more a cell of one atom rounds; see `rounding`."""


@dataclass(frozen=True)
class Evaluation:
    """Energy, forces and stress of a graph, and the fixed point that they belong to.

    Attributes:
        energy: [n_systems], eV, float64.
        energies: of the atoms [n_atoms], eV, float64.
        forces: [n_atoms, 3], eV/Å, or None.
        stress: `(1/V) ∂E/∂ε` [n_systems, 3, 3], eV/Å³, or None; nan where there is no volume.
        stresses: each atom's part of the stress [n_atoms, 3, 3], eV/Å³, or None.
        n_per_system: atoms of each structure [n_systems].
        equilibrium: the solution and its statistics.
        round_off: how far the precision's rounding may move the energy, see `rounding` [n_systems], eV/atom; None where
            results are differentiable.
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    stress: Tensor | None
    stresses: Tensor | None
    n_per_system: Tensor
    equilibrium: Equilibrium
    round_off: Tensor | None = None


@own_torch_state(grad=None)
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
    picard: bool = False,
    compile: CompileMode = False,
) -> Evaluation:
    """Energy, forces and stress of every structure in a graph.

    Where gradients are enabled and the model's weights require them, `energy`, `forces`, `stress` and `stresses` are
    differentiable in the weights, exactly and once. The atoms' `energies` are not: only their sum is stationary.

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
        picard: whether to begin with Picard iterations, see `SolveOptions`.
        compile: whether the model's functions are compiled, as in `backends.compile_function`, or `"native"`, which
            uses C++ kernels.

    Raises:
        ValueError: for elements that the model does not know; for `"native"` where there is no kernel, or where weights
            require gradients, which the kernels do not have.
    """
    if next(model.parameters()).is_inference():  # made inside inference mode, where autograd may not read them
        model = copy.deepcopy(model)
    with_gradients = torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters())
    if with_gradients and compile == "native":
        raise ValueError(
            "compile is 'native', whose kernels have no gradients of the weights; use 'auto', True or False, or call "
            "this inside torch.no_grad()."
        )
    species = model.species(graph.numbers)
    compiled = compiled_model(model, graph.vectors.device, compile)
    options = SolveOptions(tol, solver, max_steps, begin, picard)

    wanted = forces or stress
    if with_gradients:
        found, lagrangian, gradient = differentiable(model, graph, species, compiled, options, derivatives=wanted)
    else:
        with torch.no_grad():
            found = solve_equilibrium(graph, species, compiled, options, derivatives=wanted)
            gradient = None
            if wanted:
                gradient = compiled.edge_gradient(graph, species, found.encoding, found.linearized(), found.adjoint)
        lagrangian = found.lagrangian
    return evaluation_of(model, graph, species, found, lagrangian, gradient, forces=forces, stress=stress)


def forces_from(gradient: Tensor, graph: Graph) -> Tensor:
    """`F_i = Σ_k (∂L/∂d_ik − ∂L/∂d_ki)` [n_atoms, 3], eV/Å.

    Args:
        gradient: `∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å; zero in padded places.
        graph: structures.
    """
    return (gradient - gradient.flatten(0, 1)[graph.reverse]).sum(1)


def stresses_from(gradient: Tensor, graph: Graph) -> Tensor:
    """`σ_i = (1/V) sym Σ_k d_ik ⊗ ∂L/∂d_ik` [n_atoms, 3, 3], eV/Å³; their sum is the stress, nan without a volume."""
    virial = graph.vectors.transpose(1, 2) @ gradient
    volume = graph.volume[graph.system][:, None, None]
    known = volume.isfinite()  # selected last, so that derivatives of the others are 0 and not nan
    return torch.where(known, 0.5 * (virial + virial.transpose(1, 2)) / torch.where(known, volume, 1.0), torch.nan)


def rounding(lagrangian: Tensor, gradient: Tensor | None, graph: Graph) -> Tensor:
    """`5 ε max(1, 3/n) √(Σ_ikα (d_ikα ∂L/∂d_ikα)² + (Σ_i |L_i|)²) / n` [n_systems], eV/atom; ε: machine precision.

    Rounding moves what is computed from an edge about as much as rounding of the edge itself does, independently of the
    other edges; rounding of the atoms' energies is the same for all that are alike. The factor is such that of some
    thousand random structures none is further off. In cells of one or two atoms periodic images round alike, and the
    error is up to `3/n` times as large.

    Args:
        lagrangian: `L_i`, less the reference energies [n_atoms], eV.
        gradient: `∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å, zero in padded places; None for the second part alone.
        graph: structures.
    """
    squares = per_system(lagrangian.double().abs(), graph).square()
    if gradient is not None:
        squares = squares + per_system((gradient * graph.vectors).double().square().sum((1, 2)), graph)
    alike = (ALIKE / graph.n_per_system).clamp(min=1.0)
    return ROUNDINGS * torch.finfo(lagrangian.dtype).eps * alike * squares.sqrt() / graph.n_per_system


def evaluation_of(
    model: EnergyModel,
    graph: Graph,
    species: Tensor,
    equilibrium: Equilibrium,
    lagrangian: Tensor,
    gradient: Tensor | None,
    *,
    forces: bool,
    stress: bool,
) -> Evaluation:
    """What follows from a solution: energies and, where `∂L/∂d` is given, forces and stress as far as wanted.

    Args:
        model: the model.
        graph: structures.
        species: [n_atoms].
        equilibrium: the solution.
        lagrangian: `L` of each atom, less its reference energy [n_atoms], eV.
        gradient: `∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å, or None.
        forces, stress: what is wanted of it.
    """
    energies = lagrangian.double() + model.reference_energies(species)
    stresses = stresses_from(gradient, graph) if stress and gradient is not None else None
    return Evaluation(
        energy=per_system(energies, graph),
        energies=energies.detach(),
        forces=forces_from(gradient, graph) if forces and gradient is not None else None,
        stress=None if stresses is None else per_system(stresses, graph),
        stresses=stresses,
        n_per_system=graph.n_per_system,
        equilibrium=equilibrium,
        round_off=None if lagrangian.requires_grad else rounding(lagrangian, gradient, graph),
    )
