"""Small structures in one function, from the geometry to the gradient, with a few Picard iterations from a cold start.

In a structure of some dozen atoms, calling functions takes longer than what they compute.
"""

import math

import torch
from torch import Tensor

from ase_andersonn.backends import CompileMode
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import Graph

from .compiled import CompiledModel, compiled_model
from .encoding import Encoding
from .energy_forces import Evaluation, evaluation_of
from .equilibrium import Equilibrium, equilibrium_from_picard

FUSED_STEPS = (8, 7)
"""Picard iterations for the features and for the adjoint: cheap in a structure this small, while a miss is not."""
STEP_SHARE = 0.03
"""Of the residual's tolerance: how short a step in C++ has to be, where a further one costs next to nothing."""


@torch.no_grad()
def evaluate_at_once(
    model: EnergyModel, graph: Graph, *, forces: bool, stress: bool, tol: float, compile: CompileMode
) -> Evaluation | None:
    """`evaluate` of one structure; None where the steps do not reach the tolerance.

    Args:
        model: an equilibrium model.
        graph: one structure.
        forces: whether forces are wanted.
        stress: whether stress is wanted.
        tol: energy tolerance, eV/atom, as in `evaluate`.
        compile: whether the function is compiled, as in `backends.compile_function`.

    Raises:
        ValueError: for elements that the model does not know.
    """
    species = model.species(graph.numbers)
    compiled = compiled_model(model, graph.vectors.device, compile)
    found, gradient = _find(graph, species, compiled, tol, derivatives=forces or stress)
    if not found.within(tol):
        return None
    return evaluation_of(model, graph, species, found, found.lagrangian, gradient, forces=forces, stress=stress)


def _find(
    graph: Graph, species: Tensor, compiled: CompiledModel, tol: float, *, derivatives: bool
) -> tuple[Equilibrium, Tensor | None]:
    """Features and adjoint, converged or not, and `∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å, or None."""
    cell = compiled.cell_weights()
    topology = graph.neighbors, graph.mask, graph.reverse
    solved, injection, pair, gradient = compiled.fused(
        graph.vectors, species, *topology, cell, FUSED_STEPS, STEP_SHARE * math.sqrt(tol), derivatives
    )
    encoding = Encoding(injection, pair)
    backend = compiled.fused.backend
    return equilibrium_from_picard(solved, graph, encoding, cell, math.sqrt(tol), backend), gradient
