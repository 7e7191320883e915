"""The tensor functions of one equilibrium model that its training needs, each of them one piece for a compiler."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ase_andersonn.nn.equilibrium_cell import (
    EquilibriumCell,
    Injection,
    reverse_gates,
)
from ase_andersonn.potentials.base import EnergyModel

from .functions import WithWeights


class Topology(NamedTuple):
    """Which atoms are neighbours; as in `structures.graph.Graph`.

    Attributes:
        species: [n_atoms].
        neighbors: [n_atoms, n_neighbors].
        reverse: place of the reversed edges [n_atoms, n_neighbors].
    """

    species: Tensor
    neighbors: Tensor
    reverse: Tensor


class Solved(NamedTuple):
    """The solution, and what it was found with; names as in `equilibrium.Equilibrium`.

    Attributes:
        z: features [n_atoms, width].
        adjoint: λ [n_atoms, width], eV.
        slope: of the nonlinearity at `z` [n_atoms, width].
        injection: the geometry's part of the cell.
        cell: the cell.
    """

    z: Tensor
    adjoint: Tensor
    slope: Tensor
    injection: Injection
    cell: EquilibriumCell


class Tangents(NamedTuple):
    """Tangents of the solution.

    Attributes:
        z: `μ` [n_atoms, width].
        adjoint: `ν` [n_atoms, width].
        norms: of each atom `|Δμ|²`, `|μ|²`, `|Δν|²`, `|ν|²` of the last steps [n_atoms, 4].
    """

    z: Tensor
    adjoint: Tensor
    norms: Tensor


class TrainingFunctions:
    """The functions of one model.

    Args:
        model: the model; its weights are read at every call.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model
        self.lagrangian = WithWeights(model, model.lagrangian)

    def tangents(self, direction: Injection, topology: Topology, solved: Solved, steps: tuple[int, int]) -> Tangents:
        """Plain steps for the tangents `μ` and `ν` of the solution along a change of the injection.

        Args:
            direction: the change.
            topology: neighbours and species.
            solved: the solution.
            steps: numbers of Picard iterations, at least 1.
        """
        slope, gates, cell, neighbors = solved.slope, solved.injection.gates, solved.cell, topology.neighbors
        source = tangent_source(direction, solved, neighbors)
        tangent = before = source
        for _ in range(steps[0]):
            before, tangent = tangent, source + cell.jvp(tangent, slope, gates, neighbors)
        squares = [(tangent - before).square().sum(-1), tangent.square().sum(-1)]
        source = self.adjoint_source(tangent, direction, solved, topology)
        gates = reverse_gates(gates, topology.reverse)
        second = before = source
        for _ in range(steps[1]):
            before, second = second, source + cell.vjp(second, slope, gates, neighbors)
        squares += [(second - before).square().sum(-1), second.square().sum(-1)]
        return Tangents(tangent, second, torch.stack(squares, -1))

    def adjoint_source(self, tangent: Tensor, direction: Injection, solved: Solved, topology: Topology) -> Tensor:
        """Derivative of `∂E/∂z + (∂f/∂z)ᵀ λ` along tangents of `z` and injection, at fixed λ [n_atoms, width]."""
        neighbors, cell = topology.neighbors, solved.cell

        def energy(z: Tensor) -> Tensor:
            return self.model.readout(z, topology.species).sum()

        def force_on_features(z: Tensor, u: Tensor, v: Tensor, gates: Tensor) -> Tensor:
            _, slope = cell.linearize(z, Injection(u, v, gates), neighbors)
            pulled = cell.vjp(solved.adjoint, slope, reverse_gates(gates, topology.reverse), neighbors)
            gradient: Tensor = torch.func.grad(energy)(z)
            return gradient + pulled

        primals, tangents = (solved.z, *solved.injection), (tangent, *direction)
        return derivative_along(force_on_features, primals, tangents)

    def weight_gradient(
        self,
        parameters: dict[str, Tensor],
        injection: Injection,
        solution: tuple[Tensor, Tensor],
        tangents: tuple[Tensor, ...],
        energy_weights: Tensor,
        topology: Topology,
    ) -> tuple[dict[str, Tensor], Injection]:
        """Gradients in the weights and in the injection of `Σ w_i L_i + dL(ẋ, μ, ν)`.

        Args:
            parameters: the weights.
            injection: the geometry's part of the cell.
            solution: `z` and `λ`.
            tangents: changes `ẋ` of the injection's three parts, `μ` and `ν`.
            energy_weights: `w` [n_atoms].
            topology: neighbours and species.
        """

        def objective(parameters: dict[str, Tensor], *injection: Tensor) -> Tensor:
            def lagrangian(*parts: Tensor) -> tuple[Tensor, Tensor]:
                value = self.lagrangian.call(parameters, *parts, topology.neighbors, topology.species)
                return value.sum(), value

            slopes, value = torch.func.grad(lagrangian, argnums=(0, 1, 2, 3, 4), has_aux=True)(*injection, *solution)
            along = sum((slope * tangent).sum() for slope, tangent in zip(slopes, tangents, strict=True))
            total: Tensor = (energy_weights * value).sum() + along
            return total

        gradients, *of_injection = torch.func.grad(objective, argnums=(0, 1, 2, 3))(parameters, *injection)
        return gradients, Injection(*of_injection)


def tangent_source(direction: Injection, solved: Solved, neighbors: Tensor) -> Tensor:
    """Derivative of `f` along a tangent of the injection, at fixed `z` [n_atoms, width]."""

    def moved(*parts: Tensor) -> Tensor:
        return solved.cell.apply(solved.z, Injection(*parts), neighbors)

    return derivative_along(moved, tuple(solved.injection), tuple(direction))


def derivative_along(
    function: Callable[..., Tensor], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
) -> Tensor:
    """`(∂f/∂x) t`, as the transpose of `g ↦ (∂f/∂x)ᵀ g`, which is linear in `g`.

    The same as `torch.func.jvp`, which takes longer uncompiled, and which the compiler makes anew for every size of the
    batch: forward derivatives of products with numbers fix the sizes.
    """
    found = torch.func.vjp(function, *primals)
    derivative: Tensor = torch.func.vjp(lambda g: found[1](g), torch.zeros_like(found[0]))[1](tangents)[0]
    return derivative
