"""The weight-tied cell `z = f(z, x)` of an equilibrium potential: a contraction by construction.

    f(z)_i = u_i + γ W₂ φ(v_i + W₁ [m_i ; z_i]),    m_i = Σ_k a_ik ∘ (W₀ z_k)

In the norm `max_i |z_i|₂`: `Σ_k max_c |a_ikc| ≤ 1`, `‖W₀‖ ≤ 1` and so `|m_i| ≤ max_k |z_k|`; `‖W₁‖ ≤ 1/√2` on the
stacked pair; `|φ'| ≤ 1`; `‖W₂‖ ≤ 1`. So `f` contracts every distance by at least γ, for every geometry: the
equilibrium is unique, smooth in the geometry, and what an atom feels of a change `n` cutoffs away falls as γⁿ.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import bounded, lipschitz_silu, lipschitz_silu_slope


class Injection(NamedTuple):
    """What the geometry gives to the cell."""

    u: Tensor
    """Added to the features [n_atoms, n_channels]."""
    v: Tensor
    """Added inside the nonlinearity [n_atoms, n_channels]."""
    gates: Tensor
    """Message weights [n_atoms, n_neighbors, n_channels], `Σ_k max_c |gates| ≤ 1`."""


class CellWeights(NamedTuple):
    """The cell's matrices with their norms bounded."""

    send: Tensor
    mix: Tensor
    out: Tensor


class ContractiveCell(nn.Module):
    """The three matrices of the cell.

    Args:
        n_channels: channels of `z`.
        contraction: γ, in (0, 1).

    Raises:
        ValueError: if γ is not in (0, 1).
    """

    def __init__(self, n_channels: int, contraction: float) -> None:
        super().__init__()
        if not 0.0 < contraction < 1.0:
            raise ValueError(f"contraction is {contraction}; a fixed point is guaranteed for values between 0 and 1.")
        self.contraction = contraction
        self.send = nn.Linear(n_channels, n_channels, bias=False)
        self.mix = nn.Linear(2 * n_channels, n_channels, bias=False)
        self.out = nn.Linear(n_channels, n_channels, bias=False)
        with torch.no_grad():
            for linear in (self.send, self.mix, self.out):
                nn.init.orthogonal_(linear.weight)

    def weights(self) -> CellWeights:
        """The matrices, bounded: `‖W₀‖ ≤ 1`, `‖W₁‖ ≤ 1/√2`, `γ ‖W₂‖ ≤ γ`."""
        return CellWeights(
            bounded(self.send.weight),
            bounded(self.mix.weight, math.sqrt(0.5)),
            self.contraction * bounded(self.out.weight),
        )


def aggregate(gates: Tensor, sent: Tensor, neighbors: Tensor) -> Tensor:
    """`m_i = Σ_k a_ik ∘ h_k`.

    Args:
        gates: [n_atoms, n_neighbors, n_channels].
        sent: `h` [n_atoms, n_channels].
        neighbors: [n_atoms, n_neighbors].
    """
    return (gates * sent[neighbors]).sum(1)


def preactivation(z: Tensor, messages: Tensor, v: Tensor, weights: CellWeights) -> Tensor:
    """`v + W₁ [m ; z]` [n_atoms, n_channels]."""
    return v + torch.cat([messages, z], -1) @ weights.mix.T


def update(z: Tensor, messages: Tensor, u: Tensor, v: Tensor, weights: CellWeights) -> Tensor:
    """`u + γ W₂ φ(v + W₁ [m ; z])` [n_atoms, n_channels]."""
    return u + lipschitz_silu(preactivation(z, messages, v, weights)) @ weights.out.T


def apply_cell(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`f(z)` [n_atoms, n_channels]."""
    messages = aggregate(injection.gates, z @ weights.send.T, neighbors)
    return update(z, messages, injection.u, injection.v, weights)


def cell_slope(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`φ'(v + W₁ [m ; z])` [n_atoms, n_channels]: all that the Jacobian of the cell needs to know of `z`."""
    messages = aggregate(injection.gates, z @ weights.send.T, neighbors)
    return lipschitz_silu_slope(preactivation(z, messages, injection.v, weights))


def linearize(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> tuple[Tensor, Tensor]:
    """`f(z)` and the slope of `cell_slope`, from one sum over neighbours, each [n_atoms, n_channels]."""
    messages = aggregate(injection.gates, z @ weights.send.T, neighbors)
    x = preactivation(z, messages, injection.v, weights)
    return injection.u + lipschitz_silu(x) @ weights.out.T, lipschitz_silu_slope(x)


def push(tangent: Tensor, slope: Tensor, gates: Tensor, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`(∂f/∂z) t` [n_atoms, n_channels]."""
    messages = aggregate(gates, tangent @ weights.send.T, neighbors)
    return (slope * (torch.cat([messages, tangent], -1) @ weights.mix.T)) @ weights.out.T


def pull(cotangent: Tensor, slope: Tensor, gates_reversed: Tensor, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`(∂f/∂z)ᵀ λ` [n_atoms, n_channels].

    Every pair stands in the list of both its atoms, so the transposed sum over neighbours is again a sum over
    neighbours, with the gates of the reversed pairs: no scattered additions, and the same result on every run.
    """
    messages, own = ((slope * (cotangent @ weights.out)) @ weights.mix).chunk(2, -1)
    return own + aggregate(gates_reversed, messages, neighbors) @ weights.send


def reverse_gates(gates: Tensor, reverse: Tensor) -> Tensor:
    """The gates of the same pairs seen from their other end [n_atoms, n_neighbors, n_channels].

    `reverse` is its own inverse, so every gate may be put where its partner stands: a compiler turns the reading of the
    partners' gates into a part of every sum that needs them, which is five times slower.
    """
    rows = gates.flatten(0, 1)
    return torch.empty_like(rows).index_copy(0, reverse.flatten(), rows).view_as(gates)


def message_cotangent(adjoint: Tensor, slope: Tensor, weights: CellWeights) -> tuple[Tensor, Tensor]:
    """Derivatives of `⟨λ, f(z)⟩` in `v`, `s = φ' ∘ (γ W₂)ᵀ λ`, and in the messages, each [n_atoms, n_channels]."""
    inner = slope * (adjoint @ weights.out)
    return inner, inner @ weights.mix[:, : adjoint.shape[1]]


def gate_cotangent(messages: Tensor, sent: Tensor, neighbors: Tensor) -> Tensor:
    """`g_i ∘ h_k`: the derivative of `Σ_i g_i · Σ_k a_ik ∘ h_k` in the gates [n_rows, n_neighbors, n_channels].

    Args:
        messages: `g` [n_rows, n_channels].
        sent: `h` [n_atoms, n_channels].
        neighbors: [n_rows, n_neighbors].
    """
    return messages[:, None] * sent[neighbors]
