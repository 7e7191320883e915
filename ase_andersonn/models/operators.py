"""The tensor functions of an equilibrium model, each compiled where a compiler exists.

Geometry is worked through in blocks of atoms that stay in the cache: a block's neighbourhoods are encoded once for the
iteration, and again, with their derivatives, for the forces. So memory grows with the message gates alone.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..backends import CompileMode, compile_function
from ..inputs.graph import Graph
from ..nn.deq import CellWeights, Injection, apply_cell, cell_slope, pull, push, reverse_gates, update
from .base import EnergyModel

BLOCK = 256
"""Atoms in a block on the CPU."""
BLOCK_CUDA = 16384
"""Atoms in a block on a GPU."""


def gradient(function: Any, x: Tensor) -> Tensor:
    """`∂ Σ function(x) / ∂x`."""
    result: Tensor = torch.func.grad(lambda y: function(y).sum())(x)
    return result


class Operators:
    """Functions of one model on one device.

    Args:
        model: the model; its weights are read at every call.
        device: where it lives.
        mode: `"auto"`, `True` or `False`, as in `backends.compile_function`.
    """

    def __init__(self, model: EnergyModel, device: torch.device, mode: CompileMode) -> None:
        self.block = BLOCK if device.type == "cpu" else BLOCK_CUDA

        def encode(vectors: Tensor, species: Tensor, neighbor_species: Tensor, mask: Tensor) -> Injection:
            return model.encode(vectors, species, neighbor_species, mask)

        def readout_gradient(z: Tensor, species: Tensor) -> Tensor:
            return gradient(lambda y: model.readout(y, species), z)

        def row_gradient(
            vectors: Tensor,
            species: Tensor,
            neighbor_species: Tensor,
            mask: Tensor,
            sent: Tensor,
            z: Tensor,
            adjoint: Tensor,
            weights: CellWeights,
        ) -> Tensor:
            """`∂L/∂d` of a block of atoms, `sent` being what their neighbours send."""

            def lagrangian(d: Tensor) -> Tensor:
                u, v, gates = model.encode(d, species, neighbor_species, mask)
                f = update(z, (gates * sent).sum(1), u, v, weights)
                return (adjoint * f).sum(-1) + model.pair_energies(d, species, neighbor_species, mask)

            return gradient(lagrangian, vectors)

        def encode_tangent(
            vectors: Tensor, direction: Tensor, species: Tensor, neighbor_species: Tensor, mask: Tensor
        ) -> Injection:
            _, tangent = torch.func.jvp(
                lambda d: tuple(model.encode(d, species, neighbor_species, mask)), (vectors,), (direction,)
            )
            return Injection(*tangent)

        def adjoint_source(
            z: Tensor,
            tangent: Tensor,
            injection: Injection,
            injection_tangent: Injection,
            adjoint: Tensor,
            neighbors: Tensor,
            reverse: Tensor,
            species: Tensor,
            weights: CellWeights,
        ) -> Tensor:
            """Derivative of `∂E/∂z + (∂f/∂z)ᵀ λ` along tangents of `z` and of the geometry, at fixed λ."""

            def force_on_features(z: Tensor, u: Tensor, v: Tensor, gates: Tensor) -> Tensor:
                slope = cell_slope(z, Injection(u, v, gates), neighbors, weights)
                own = torch.func.grad(lambda y: model.readout(y, species).sum())(z)
                return own + pull(adjoint, slope, reverse_gates(gates, reverse), neighbors, weights)

            _, derivative = torch.func.jvp(force_on_features, (z, *injection), (tangent, *injection_tangent))
            return derivative

        def weight_gradient(
            parameters: dict[str, Tensor],
            primals: tuple[Tensor, Tensor, Tensor],
            tangents: tuple[Tensor, Tensor, Tensor],
            energy_weights: Tensor,
            neighbors: Tensor,
            species: Tensor,
            mask: Tensor,
        ) -> dict[str, Tensor]:
            """Gradient in the weights of `Σ w_i L_i + dL(ẋ, μ, ν)`; primals and tangents of `(d, z, λ)`."""

            def objective(parameters: dict[str, Tensor]) -> Tensor:
                def lagrangian(vectors: Tensor, z: Tensor, adjoint: Tensor) -> tuple[Tensor, Tensor]:
                    args = (vectors, z, adjoint, neighbors, species, mask)
                    value = torch.func.functional_call(model, parameters, args)
                    return value.sum(), value

                slopes, value = torch.func.grad(lagrangian, argnums=(0, 1, 2), has_aux=True)(*primals)
                along = sum((slope * tangent).sum() for slope, tangent in zip(slopes, tangents, strict=True))
                return (energy_weights * value).sum() + along

            return torch.func.grad(objective)(parameters)

        def compiled(function: Any) -> Any:
            return compile_function(function, device=device, mode=mode, dynamic=True)

        self.encode_block = compiled(encode)
        self.readout_gradient = compiled(readout_gradient)
        self.row_gradient = compiled(row_gradient)
        self.encode_tangent = compiled(encode_tangent)
        self.adjoint_source = compiled(adjoint_source)
        self.weight_gradient = compiled(weight_gradient)
        self.cell = compiled(apply_cell)
        self.slope = compiled(cell_slope)
        self.push = compiled(push)
        self.pull = compiled(pull)

    def blocks(self, n_atoms: int) -> Iterator[slice]:
        """Slices of at most `block` atoms that cover all."""
        return (slice(start, min(start + self.block, n_atoms)) for start in range(0, n_atoms, self.block))

    def encode(self, graph: Graph, species: Tensor) -> Injection:
        """`Injection` of all atoms, block by block."""
        parts = [
            self.encode_block(graph.vectors[b], species[b], species[graph.neighbors[b]], graph.mask[b])
            for b in self.blocks(len(species))
        ]
        return parts[0] if len(parts) == 1 else Injection(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def edge_gradient(
        self, graph: Graph, species: Tensor, z: Tensor, adjoint: Tensor, weights: CellWeights
    ) -> Tensor:
        """`∂L/∂d` [n_atoms, n_neighbors, 3], eV/Å, block by block."""
        sent = z @ weights.send.T
        result = torch.empty_like(graph.vectors)
        for b in self.blocks(len(species)):
            neighbors = graph.neighbors[b]
            result[b] = self.row_gradient(
                graph.vectors[b],
                species[b],
                species[neighbors],
                graph.mask[b],
                sent[neighbors],
                z[b],
                adjoint[b],
                weights,
            )
        return result


_CACHE: "weakref.WeakKeyDictionary[EnergyModel, dict[Any, Operators]]" = weakref.WeakKeyDictionary()


def operators_of(model: EnergyModel, device: torch.device, mode: CompileMode) -> Operators:
    """The functions of a model, made once for each device and compile mode."""
    made = _CACHE.setdefault(model, {})
    key = (device, mode)
    if key not in made:
        made[key] = Operators(model, device, mode)
    return made[key]
