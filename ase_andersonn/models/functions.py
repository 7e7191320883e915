"""The tensor functions of one equilibrium model, each of them one piece for a compiler."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.nn.deq import (
    CellWeights,
    Injection,
    apply_cell,
    gate_cotangent,
    linearize,
    message_cotangent,
    pull,
    reverse_gates,
    send,
)

from .base import EnergyModel


class Swept(NamedTuple):
    """What some plain steps for the features, and then for the adjoint, arrive at; names as in `Equilibrium`.

    Attributes:
        z: features [n_atoms, n_channels].
        adjoint: λ [n_atoms, n_channels], eV.
        slope: of the cell at `z` [n_atoms, n_channels].
        lagrangian: `e_i + λ_i · (f(z) − z)_i` [n_atoms], eV.
        norms: of each atom `|f − z|²`, `|f|²`, `|Δλ|²`, `|λ|²` and `λ · (f − z)` [n_atoms, 5].
    """

    z: Tensor
    adjoint: Tensor
    slope: Tensor
    lagrangian: Tensor
    norms: Tensor


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

    def sweep(
        self,
        z: Tensor,
        injection: Injection,
        neighbors: Tensor,
        reverse: Tensor,
        weights: CellWeights,
        species: Tensor,
        focus: Tensor | None,
        steps: tuple[int, int],
    ) -> Swept:
        """Plain steps `z ← f(z)`, then `λ ← ∂E/∂z + (∂f/∂z)ᵀ λ` at the last `z`, all in one function.

        Args:
            z: where to start [n_atoms, n_channels].
            injection: the geometry's part of the cell.
            neighbors: [n_atoms, n_neighbors].
            reverse: place of the reversed edges [n_atoms, n_neighbors].
            weights: the cell's matrices.
            species: [n_atoms].
            focus: 1 for atoms whose readout is part of the energy, 0 for the others [n_atoms]; None for all.
            steps: numbers of both, at least 1.
        """
        for _ in range(steps[0]):
            z = apply_cell(z, injection, neighbors, weights)
        residual, slope, source, energies = self.linearize(z, injection, neighbors, weights, species)
        if focus is not None:
            source, energies = source * focus[:, None], energies * focus
        gates = reverse_gates(injection.gates, reverse)
        adjoint = before = source
        for _ in range(steps[1]):
            before, adjoint = adjoint, source + pull(adjoint, slope, gates, neighbors, weights)
        correction = (adjoint * residual).sum(-1)
        squares = [x.square().sum(-1) for x in (residual, z + residual, adjoint - before, adjoint)]
        return Swept(z, adjoint, slope, energies + correction, torch.stack((*squares, correction), -1))

    def at_once(
        self,
        vectors: Tensor,
        species: Tensor,
        neighbors: Tensor,
        mask: Tensor,
        reverse: Tensor,
        weights: CellWeights,
        steps: tuple[int, int],
        derivatives: bool,
    ) -> tuple[Swept, Injection, Tensor, Tensor | None]:
        """`encode`, `sweep` from a cold start, and where wanted the derivative of `L` in the edge vectors, in one.

        Returns:
            what the steps arrive at, the geometry's part of the cell, the pair energies [n_atoms], eV, and `∂L/∂d`
            [n_atoms, n_neighbors, 3], eV/Å, or None.
        """

        def encode(d: Tensor) -> tuple[Tensor, ...]:
            return self.encode(d, species, species[neighbors], mask)

        pull_back: Any = None
        if derivatives:
            outputs, pull_back = torch.func.vjp(encode, vectors)  # type: ignore[misc]  # without has_aux two
        else:
            outputs = encode(vectors)
        *parts, pair = outputs
        injection = Injection(*parts)
        swept = self.sweep(injection.u, injection, neighbors, reverse, weights, species, None, steps)
        if pull_back is None:
            return swept, injection, pair, None
        inner, messages, _ = message_cotangent(swept.adjoint, swept.slope, weights)
        gates = gate_cotangent(messages, send(swept.z, weights), injection.gates, neighbors, weights)
        return swept, injection, pair, pull_back((swept.adjoint, inner, gates, torch.ones_like(pair)))[0]
