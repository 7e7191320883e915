"""The weight-tied cell `z = f(z, x)` of an equilibrium potential: a contraction by construction.

    f(z)_i = u_i + γ W₂ φ(v_i + W₁ [m_i ; z_i]),    m_i = Σ_k A_ik W₀ z_k

`z` holds scalars and, where the model has them, tensors of higher ranks (`irreps.py`), which the matrices keep apart
and the operators `A_ik` of the bonds turn into one another (`messages.py`). In the norm `max_i |z_i|₂`, which rotations
leave alone: `Σ_k ‖A_ik‖ ≤ 1`, `‖W₀‖ ≤ 1` and so `|m_i| ≤ max_k |z_k|`; `‖W₁‖ ≤ 1/√2` on the stacked pair; `φ` expands
no distance; `‖W₂‖ ≤ 1`. So `|f(z) − f(z')| ≤ γ |z − z'|`, for every geometry: the equilibrium is unique, smooth in the
geometry, and what an atom feels of a change `n` cutoffs away falls as γⁿ.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import bounded
from .irreps import join, mapped, norm_activation, norm_activation_derivative, norm_activation_jvp, split, transposed
from .messages import FeatureShape, aggregate, gathered


class Injection(NamedTuple):
    """What the geometry gives to the cell; the width of the features is `ranks.width(n_scalars, n_tensors, l_max)`."""

    u: Tensor
    """Added to the features [n_atoms, width]."""
    v: Tensor
    """Added inside the nonlinearity [n_atoms, width]."""
    gates: Tensor
    """Coefficients of the messages [n_atoms, n_neighbors, n_gates], of operator norms that add up to at most 1."""


class CellWeights(NamedTuple):
    """The cell's matrices with their norms bounded, of each rank one."""

    send: tuple[Tensor, ...]
    mix: tuple[Tensor, ...]
    out: tuple[Tensor, ...]

    @classmethod
    def of_scalars(cls, send: Tensor, mix: Tensor, out: Tensor) -> "CellWeights":
        """Those of features without tensors."""
        return cls((send,), (mix,), (out,))

    @property
    def shape(self) -> FeatureShape:
        """Sizes of features and messages."""
        l_max = len(self.out) - 1
        return FeatureShape(self.out[0].shape[0], self.out[-1].shape[0] if l_max else 0, l_max)

    def sum_messages(self, gates: Tensor, sent: Tensor, neighbors: Tensor, *, transposed: bool = False) -> Tensor:
        """The messages [n_rows, width], see `aggregate`."""
        return aggregate(gates, sent, neighbors, self.shape, transposed=transposed)


class ContractiveCell(nn.Module):
    """The matrices of the cell.

    Args:
        contraction: γ, in (0, 1).
        shape: scalars and tensors of `z`.

    Raises:
        ValueError: if γ is not in (0, 1).
    """

    def __init__(self, contraction: float, shape: FeatureShape) -> None:
        super().__init__()
        if not 0.0 < contraction < 1.0:
            raise ValueError(f"contraction is {contraction}; a fixed point is guaranteed for values between 0 and 1.")
        self.contraction = contraction
        n_channels, n_tensors, l_max = shape
        self.send = nn.Linear(n_channels, shape.n_sent, bias=False)
        self.mix = nn.Linear(shape.n_sent + n_channels, n_channels, bias=False)
        self.out = nn.Linear(n_channels, n_channels, bias=False)
        self.send_tensors, self.mix_tensors, self.out_tensors = (
            nn.ModuleList([nn.Linear(n_in, n_tensors, bias=False) for _ in range(l_max)])
            for n_in in (n_tensors, 2 * n_tensors, n_tensors)
        )
        with torch.no_grad():
            for linear in self.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.orthogonal_(linear.weight)

    def weights(self) -> CellWeights:
        """The matrices, bounded: `‖W₀‖ ≤ 1`, `‖W₁‖ ≤ 1/√2`, `γ ‖W₂‖ ≤ γ`."""

        def of_ranks(first: nn.Linear, others: nn.ModuleList, bound: float = 1.0) -> tuple[Tensor, ...]:
            return tuple(bounded(linear.weight, bound) for linear in (first, *others))

        out = of_ranks(self.out, self.out_tensors)
        return CellWeights(
            of_ranks(self.send, self.send_tensors),
            of_ranks(self.mix, self.mix_tensors, math.sqrt(0.5)),
            tuple(self.contraction * matrix for matrix in out),
        )


def send(z: Tensor, weights: CellWeights) -> Tensor:
    """`W₀ z` [n_atoms, width of a message]."""
    return mapped(z, weights.send)


def preactivation(z: Tensor, messages: Tensor, v: Tensor, weights: CellWeights) -> Tensor:
    """`v + W₁ [m ; z]` [n_atoms, width]."""
    shape = weights.shape
    pairs = zip(split(messages, shape.n_sent, shape.l_max), split(z, shape.n_scalars, shape.l_max), strict=True)
    return v + mapped(join([torch.cat(pair, -1) for pair in pairs]), weights.mix)


def apply_cell(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`f(z)` [n_atoms, width]."""
    x = _inner(z, injection, neighbors, weights)
    return injection.u + mapped(norm_activation(x, *_ranks(weights)), weights.out)


def cell_slope(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """The slope of `φ` at `v + W₁ [m ; z]` [n_atoms, width]: all that the Jacobian of the cell needs to know of `z`."""
    return norm_activation_derivative(_inner(z, injection, neighbors, weights), *_ranks(weights))


def linearize(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> tuple[Tensor, Tensor]:
    """`f(z)` and the slope of `cell_slope`, from one sum over neighbours, each [n_atoms, width]."""
    x = _inner(z, injection, neighbors, weights)
    ranks = _ranks(weights)
    return injection.u + mapped(norm_activation(x, *ranks), weights.out), norm_activation_derivative(x, *ranks)


def push(tangent: Tensor, slope: Tensor, gates: Tensor, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`(∂f/∂z) t` [n_atoms, width]."""
    messages = weights.sum_messages(gates, send(tangent, weights), neighbors)
    inner = preactivation(tangent, messages, torch.zeros_like(tangent), weights)
    return mapped(norm_activation_jvp(slope, inner, *_ranks(weights)), weights.out)


def pull(cotangent: Tensor, slope: Tensor, gates_reversed: Tensor, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """`(∂f/∂z)ᵀ λ` [n_atoms, width].

    Every pair stands in the list of both its atoms, so the transposed sum over neighbours is again a sum over
    neighbours, with the gates of the reversed pairs: no scattered additions, and the same result on every run.
    """
    _, messages, own = message_cotangent(cotangent, slope, weights)
    received = weights.sum_messages(gates_reversed, messages, neighbors, transposed=True)
    return own + mapped(received, transposed(weights.send))


def message_cotangent(adjoint: Tensor, slope: Tensor, weights: CellWeights) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of `⟨λ, f(z)⟩` in `v`, `s = φ' (γ W₂)ᵀ λ`, in the messages, and in `z` at fixed messages."""
    shape = weights.shape
    inner = norm_activation_jvp(slope, mapped(adjoint, transposed(weights.out)), *_ranks(weights))
    both = split(mapped(inner, transposed(weights.mix)), shape.n_sent + shape.n_scalars, shape.l_max)
    sizes = [shape.n_sent, *([shape.n_tensors] * shape.l_max)]
    return (
        inner,
        join([part[..., :n] for part, n in zip(both, sizes, strict=True)]),
        join([part[..., n:] for part, n in zip(both, sizes, strict=True)]),
    )


def gate_cotangent(messages: Tensor, sent: Tensor, gates: Tensor, neighbors: Tensor, weights: CellWeights) -> Tensor:
    """The derivative of `⟨g, m⟩` in the gates [n_rows, n_neighbors, n_gates].

    Args:
        messages: `g`, the messages' cotangent [n_rows, width of a message].
        sent: `W₀ z` [n_atoms, width of a message].
        gates: [n_rows, n_neighbors, n_gates].
        neighbors: [n_rows, n_neighbors].
        weights: the cell's matrices.
    """
    if weights.shape.l_max == 0:
        return messages[:, None] * gathered(sent, neighbors)

    def received(gates: Tensor) -> Tensor:
        return weights.sum_messages(gates, sent, neighbors)

    cotangent: Tensor = torch.func.vjp(received, gates)[1](messages)[0]
    return cotangent


def _inner(z: Tensor, injection: Injection, neighbors: Tensor, weights: CellWeights) -> Tensor:
    messages = weights.sum_messages(injection.gates, send(z, weights), neighbors)
    return preactivation(z, messages, injection.v, weights)


def _ranks(weights: CellWeights) -> tuple[int, int]:
    return weights.shape.n_scalars, weights.shape.l_max


def reverse_gates(gates: Tensor, reverse: Tensor) -> Tensor:
    """The gates of the same pairs seen from their other end [n_atoms, n_neighbors, n_gates].

    `reverse` is its own inverse, so every gate may be put where its partner stands: a compiler turns the reading of the
    partners' gates into a part of every sum that needs them, which is five times slower.
    """
    rows = gates.flatten(0, 1)
    return torch.empty_like(rows).index_copy(0, reverse.flatten(), rows).view_as(gates)
