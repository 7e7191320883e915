"""The tensor functions of one equilibrium model, each of them one piece for a compiler."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ase_andersonn.nn.equilibrium_cell import (
    EquilibriumCell,
    Injection,
    reverse_gates,
)
from ase_andersonn.nn.messages import gathered
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import EnergyModel

from .pullback import pullback


class PicardResult(NamedTuple):
    """Result of Picard iterations for the features, and then for the adjoint; names as in `Equilibrium`.

    Attributes:
        z: features [n_atoms, n_channels].
        adjoint: λ [n_atoms, n_channels], eV.
        slope: of the cell at `z` [n_atoms, n_channels].
        lagrangian: `e_i + λ_i · (f(z) − z)_i` [n_atoms], eV.
        norms: of each atom `|f − z|²`, `|f|²`, `|Δλ|²`, `|λ|²` and `λ · (f − z)` [n_atoms, 5].
        steps: iterations of both.
    """

    z: Tensor
    adjoint: Tensor
    slope: Tensor
    lagrangian: Tensor
    norms: Tensor
    steps: tuple[int, int]


class WithWeights(nn.Module):
    """Function of a model that is called with other weights than the model's.

    Args:
        model: the model.
        function: of this model, as one of its methods.
    """

    def __init__(self, model: EnergyModel, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)

    def call(self, weights: dict[str, Tensor], *args: Any) -> Any:
        """The function's value for weights given by the model's names; others are the model's."""
        named = {f"model.{name}": weight for name, weight in weights.items()}
        return torch.func.functional_call(self, named, args)


class Functions:
    """The functions of one model that are compiled as they stand.

    Args:
        model: the model; its weights are read at every call.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model

    def encode(
        self, vectors: Tensor, species: Tensor, neighbors: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`u`, `v`, gates and pair energies of all atoms."""
        u, v, gates = self.model.encode(vectors, species, neighbors, mask)
        return u, v, gates, self.model.pair_energies(Neighborhoods(vectors, species, species[neighbors], mask))

    def encode_block(self, near: Neighborhoods) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same of a block of atoms without messages before the solve."""
        node, _, gates, pair = self.embed(near)
        return *self.inject(near, node, None), gates, pair

    def embed(self, near: Neighborhoods) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Node features, messages, gates and pair energies of a block of atoms."""
        return *self.model.embed(near), self.model.pair_energies(near)

    def inject(self, near: Neighborhoods, node: Tensor, messages: Tensor | None) -> tuple[Tensor, Tensor]:
        """`u` and `v` of a block of atoms."""
        return self.model.inject(near, node, messages)

    def linearize(
        self, z: Tensor, injection: Injection, neighbors: Tensor, cell: EquilibriumCell, species: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`f(z) − z`, the slope of the cell, `∂E/∂z` [n_atoms, n_channels], and `E` of each atom [n_atoms]."""
        f, slope = cell.linearize(z, injection, neighbors)
        (energies,), pull_back = pullback(lambda y: (self.model.readout(y, species),), z)
        (source,) = pull_back((torch.ones_like(energies),))
        return f - z, slope, source, energies

    def features(
        self,
        z: Tensor,
        injection: Injection,
        neighbors: Tensor,
        cell: EquilibriumCell,
        steps: int,
        tol: float,  # noqa: ARG002 (of functions that look at what they have found)
    ) -> tuple[Tensor, int]:
        """Picard iterations `z ← f(z)` [n_atoms, n_channels], and their number; arguments as in `picard`."""
        for _ in range(steps):
            z = cell.apply(z, injection, neighbors)
        return z, steps

    def adjoint(
        self,
        source: Tensor,
        slope: Tensor,
        gates: Tensor,
        neighbors: Tensor,
        reverse: Tensor,
        cell: EquilibriumCell,
        steps: int,
        tol: float,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, int]:
        """`λ ← source + (∂f/∂z)ᵀ λ`: the last, the one before [n_atoms, n_channels], and the number of iterations."""
        gates = reverse_gates(gates, reverse)
        adjoint = before = source
        for _ in range(steps):
            before, adjoint = adjoint, source + cell.vjp(adjoint, slope, gates, neighbors)
        return adjoint, before, steps

    def picard(
        self,
        z: Tensor,
        injection: Injection,
        neighbors: Tensor,
        reverse: Tensor,
        cell: EquilibriumCell,
        species: Tensor,
        focus: Tensor | None,
        steps: tuple[int, int],
        tol: float = 0.0,
    ) -> PicardResult:
        """Picard iterations `z ← f(z)`, then `λ ← ∂E/∂z + (∂f/∂z)ᵀ λ` at the last `z`, all in one function.

        Args:
            z: where to start [n_atoms, n_channels].
            injection: the geometry's part of the cell.
            neighbors: [n_atoms, n_neighbors].
            reverse: place of the reversed edges [n_atoms, n_neighbors].
            cell: the cell.
            species: [n_atoms].
            focus: 1 for atoms whose readout is part of the energy, 0 for the others [n_atoms]; None for all.
            steps: numbers of both, at least 1.
            tol: relative length of a step, of a single structure, after which functions in C++ stop instead.
        """
        z, n_forward = self.features(z, injection, neighbors, cell, steps[0], tol)
        residual, slope, source, energies = self.linearize(z, injection, neighbors, cell, species)
        if focus is not None:
            source, energies = source * focus[:, None], energies * focus
        topology = neighbors, reverse
        adjoint, before, n_backward = self.adjoint(source, slope, injection.gates, *topology, cell, steps[1], tol)
        correction = (adjoint * residual).sum(-1)
        squares = [x.square().sum(-1) for x in (residual, z + residual, adjoint - before, adjoint)]
        norms = torch.stack((*squares, correction), -1)
        return PicardResult(z, adjoint, slope, energies + correction, norms, (n_forward, n_backward))

    def fused(
        self,
        vectors: Tensor,
        species: Tensor,
        neighbors: Tensor,
        mask: Tensor,
        reverse: Tensor,
        cell: EquilibriumCell,
        steps: tuple[int, int],
        tol: float,
        derivatives: bool,
    ) -> tuple[PicardResult, Injection, Tensor, Tensor | None]:
        """`encode`, `picard` from a cold start, and where wanted `∂L/∂d` of the edge vectors, in one.

        Returns:
            the result of the iterations, the geometry's part of the cell, the pair energies [n_atoms], eV, and `∂L/∂d`
            [n_atoms, n_neighbors, 3], eV/Å, or None.
        """
        (u, v, gates, pair), pull_back = self.encoded(vectors, species, neighbors, mask, reverse, derivatives)
        injection = Injection(u, v, gates)
        solved = self.picard(u, injection, neighbors, reverse, cell, species, None, steps, tol)
        if pull_back is None:
            return solved, injection, pair, None
        inner, messages = cell.injection_vjp(solved.adjoint, solved.slope)
        of_gates = cell.gates_vjp(messages, cell.send(solved.z), gates, neighbors)
        return solved, injection, pair, pull_back(solved.adjoint, inner, of_gates, torch.ones_like(pair))

    def encoded(
        self,
        vectors: Tensor,
        species: Tensor,
        neighbors: Tensor,
        mask: Tensor,
        reverse: Tensor,
        derivatives: bool,
    ) -> tuple[tuple[Tensor, ...], Callable[..., Tensor] | None]:
        """`encode`, and where wanted what pulls cotangents of its outputs back to the edge vectors."""
        if not derivatives:
            return self.encode(vectors, species, neighbors, mask), None
        near = Neighborhoods(vectors, species, species[neighbors], mask)
        if not self.model.n_message:
            outputs, back = pullback(lambda d: self.encode_block(near._replace(vectors=d)), vectors)
            return outputs, lambda *cotangents: back(cotangents)[0]
        (node, message, *others), embed_back = pullback(lambda d: self.embed(near._replace(vectors=d)), vectors)
        inputs = vectors, node, gathered(message, neighbors)
        injected, inject_back = pullback(lambda d, *others: self.inject(near._replace(vectors=d), *others), *inputs)

        def pull_back(u: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
            gradient, of_node, of_messages = inject_back((u, v))
            total: Tensor = gradient + embed_back((of_node, message_vjp(of_messages, reverse), *rest))[0]
            return total

        return (*injected, *others), pull_back


def message_vjp(of_received: Tensor, reverse: Tensor) -> Tensor:
    """Derivative in the messages [n_atoms, n_message], from that in the messages received.

    As every pair stands in the list of both its atoms, it is a sum over neighbours again: no scattered additions. An
    edge that leads to itself, as those to atoms without a list do, is to have no cotangent.

    Args:
        of_received: [n_atoms, n_neighbors, n_message].
        reverse: place of the reversed edges [n_atoms, n_neighbors].
    """
    return gathered(of_received.flatten(0, 1), reverse).sum(1)
