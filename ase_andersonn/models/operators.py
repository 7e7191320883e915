"""The tensor functions of an equilibrium model, each compiled where a compiler exists.

Geometry is worked through in blocks of atoms that stay in the cache. In small systems what a block's derivatives need
is kept from the encoding to the forces; in large ones it is computed again, so that memory grows with the message
gates alone.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.backends import CompileMode, compile_function
from ase_andersonn.inputs.graph import Graph
from ase_andersonn.nn.deq import (
    CellWeights,
    Injection,
    apply_cell,
    cell_slope,
    gate_cotangent,
    linearize,
    pull,
    push,
    reverse_gates,
)

from .base import EnergyModel

BLOCK = 256
"""Atoms in a block on the CPU."""
BLOCK_CUDA = 16384
"""Atoms in a block on a GPU."""
KEPT_ATOMS = 16384
"""Larger systems encode their neighbourhoods again for the forces instead of keeping what the derivatives need."""


class Encoding(NamedTuple):
    """What the geometry gives, and how it was computed where its derivatives are wanted.

    Attributes:
        injection: the geometry's part of the cell.
        pair: energies that depend on the geometry alone [n_atoms], eV.
        tape: of each block the edge vectors and outputs with their derivatives, or None where they are computed anew.
    """

    injection: Injection
    pair: Tensor
    tape: list[Any]


class Linearized(NamedTuple):
    """The cell at its solution.

    Attributes:
        sent: `W₀ z` [n_atoms, n_channels].
        slope: derivative of the nonlinearity [n_atoms, n_channels].
        weights: the cell's matrices.
    """

    sent: Tensor
    slope: Tensor
    weights: CellWeights


class Functions:
    """The functions of one model that are compiled as they stand.

    Args:
        model: the model; its weights are read at every call.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model

    def encode(
        self, vectors: Tensor, species: Tensor, neighbor_species: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`u`, `v`, gates and pair energies of a block of atoms."""
        args = vectors, species, neighbor_species, mask
        u, v, gates = self.model.encode(*args)
        return u, v, gates, self.model.pair_energies(*args)

    def readout_gradient(self, z: Tensor, species: Tensor) -> Tensor:
        """`∂E/∂z` [n_atoms, n_channels]."""
        result: Tensor = torch.func.grad(lambda y: self.model.readout(y, species).sum())(z)
        return result

    def linearize(
        self, z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights, species: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`f(z) − z`, the slope of the cell, `∂E/∂z` [n_atoms, n_channels], and `E` of each atom [n_atoms]."""

        def readout(y: Tensor) -> tuple[Tensor, Tensor]:
            energies = self.model.readout(y, species)
            return energies.sum(), energies

        f, slope = linearize(z, injection, neighbors, weights)
        source, energies = torch.func.grad(readout, has_aux=True)(z)
        return f - z, slope, source, energies

    def encode_tangent(
        self, vectors: Tensor, direction: Tensor, species: Tensor, neighbor_species: Tensor, mask: Tensor
    ) -> Injection:
        """Derivative of the injection along a change of the edge vectors."""

        def encode(d: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.model.encode(d, species, neighbor_species, mask))

        return Injection(*torch.func.jvp(encode, (vectors,), (direction,))[1])

    def adjoint_source(
        self,
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
            pulled = pull(adjoint, slope, reverse_gates(gates, reverse), neighbors, weights)
            return self.readout_gradient(z, species) + pulled

        derivative: Tensor = torch.func.jvp(force_on_features, (z, *injection), (tangent, *injection_tangent))[1]
        return derivative

    def weight_gradient(
        self,
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
                value = torch.func.functional_call(self.model, parameters, args)
                return value.sum(), value

            slopes, value = torch.func.grad(lagrangian, argnums=(0, 1, 2), has_aux=True)(*primals)
            along = sum((slope * tangent).sum() for slope, tangent in zip(slopes, tangents, strict=True))
            total: Tensor = (energy_weights * value).sum() + along
            return total

        gradients: dict[str, Tensor] = torch.func.grad(objective)(parameters)
        return gradients


class Operators:
    """The functions of one model on one device, and what is put together from them.

    Args:
        model: the model; its weights are read at every call.
        device: where it lives.
        mode: `"auto"`, `True` or `False`, as in `backends.compile_function`.
    """

    def __init__(self, model: EnergyModel, device: torch.device, mode: CompileMode) -> None:
        def compiled(function: Any, dynamic: bool | None = None) -> Any:
            return compile_function(function, device=device, mode=mode, dynamic=dynamic)

        functions = Functions(model)
        self.encode_block = compiled(functions.encode)
        self.linearize = compiled(functions.linearize)
        # Forward-mode derivatives would be compiled anew for every number of atoms.
        self.encode_tangent = functions.encode_tangent
        self.adjoint_source = functions.adjoint_source
        # The largest function by far: batches differ in size, so compile it once for all sizes.
        self.weight_gradient = compiled(functions.weight_gradient, dynamic=True)
        self.gate_cotangent = compiled(gate_cotangent)
        self.cell = compiled(apply_cell)
        self.push = compiled(push)
        self.pull = compiled(pull)
        self.block = BLOCK if device.type == "cpu" else BLOCK_CUDA
        self._model = model
        self._weights: tuple[Any, CellWeights | None] = (None, None)

    @torch.no_grad()
    def cell_weights(self) -> CellWeights:
        """The cell's bounded matrices, made anew where a weight of the model has changed."""
        version = [(p.data_ptr(), p._version) for p in self._model.parameters()]
        if self._weights[0] != version:
            self._weights = version, self._model.cell_weights()
        weights = self._weights[1]
        assert weights is not None
        return weights

    def blocks(self, n_atoms: int) -> Iterator[slice]:
        """Slices of at most `block` atoms that cover all."""
        return (slice(start, min(start + self.block, n_atoms)) for start in range(0, n_atoms, self.block))

    def encode(self, graph: Graph, species: Tensor, *, keep: bool) -> Encoding:
        """The geometry's part of the cell for all atoms, block by block.

        Args:
            graph: structures.
            species: [n_atoms]; there may be more atoms than rows in the graph, which are then neighbours only.
            keep: whether derivatives in the edge vectors will be asked for.
        """
        keep = keep and graph.n_atoms <= KEPT_ATOMS
        tape, parts = [], []
        for b in self.blocks(graph.n_atoms):
            vectors, outputs = self.encode_rows(graph, species, b, keep)
            tape.append((vectors, outputs) if keep else None)
            parts.append([output.detach() for output in outputs])
        *injection, pair = parts[0] if len(parts) == 1 else (torch.cat(blocks) for blocks in zip(*parts, strict=True))
        return Encoding(Injection(*injection), pair, tape)

    def edge_gradient(
        self, graph: Graph, species: Tensor, encoding: Encoding, state: Linearized, adjoint: Tensor
    ) -> Tensor:
        """`∂L/∂d = λ · ∂f/∂d + ∂E_pair/∂d` [n_atoms, n_neighbors, 3], eV/Å, block by block.

        `f` depends on the edge vectors through `u`, `v` and the gates alone; their cotangents are `λ`, `s = φ' ∘ (W₂ᵀ
        λ)` and `(W₁ᵀ s)_i ∘ (W₀ z)_k`.
        """
        inner = state.slope * (adjoint @ state.weights.out)
        messages = inner @ state.weights.mix[:, : adjoint.shape[1]]
        gradients = []
        for b, kept in zip(self.blocks(len(species)), encoding.tape, strict=True):
            vectors, outputs = kept or self.encode_rows(graph, species, b, True)
            gates = self.gate_cotangent(messages[b], state.sent, graph.neighbors[b])
            cotangents = adjoint[b], inner[b], gates, torch.ones_like(outputs[3])
            gradients.append(torch.autograd.grad(outputs, vectors, cotangents)[0])
        return gradients[0] if len(gradients) == 1 else torch.cat(gradients)

    def encode_rows(self, graph: Graph, species: Tensor, b: slice, keep: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Edge vectors of some rows, and their part of the cell, with what its derivatives need where `keep`."""
        with torch.set_grad_enabled(keep):
            vectors = graph.vectors[b].detach().requires_grad_(keep)
            return vectors, self.encode_block(vectors, species[b], species[graph.neighbors[b]], graph.mask[b])


def operators_of(model: EnergyModel, device: torch.device, mode: CompileMode) -> Operators:
    """The functions of a model, made once for each device and compile mode, and kept with it."""
    key = (device, mode)
    if key not in model.operators:
        model.operators[key] = Operators(model, device, mode)
    operators: Operators = model.operators[key]
    return operators
