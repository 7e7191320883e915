"""The weight-tied cell `z = f(z, x)` of an equilibrium potential: a contraction by construction.

    f(z)_i = u_i + γ W₂ φ(v_i + W₁ [m_i ; z_i]),    m_i = Σ_k A_ik W₀ z_k

`z` holds scalars and, where the model has them, tensors of higher ranks (`irreps.py`), which the matrices keep apart
and the operators `A_ik` of the bonds turn into one another (`messages.py`). In the norm `max_i |z_i|₂`, which rotations
leave alone: `Σ_k ‖A_ik‖ ≤ 1`, `‖W₀‖ ≤ 1` and so `|m_i| ≤ max_k |z_k|`; `‖W₁‖ ≤ 1/√2` on the stacked pair; `φ` expands
no distance; `‖W₂‖ ≤ 1`. So `|f(z) − f(z')| ≤ γ |z − z'|`, for every geometry: the equilibrium is unique, smooth in the
geometry, and what an atom feels of a change `n` cutoffs away falls as γⁿ.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

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


class EquilibriumCell(Protocol):
    """A cell `f(z) = u + g(v, m, z)` with messages `m` that are linear in what is sent, and its Jacobian.

    A named tuple of tensors, so that functions of it can be compiled. `|f(z) − f(z')| ≤ γ |z − z'|` with a γ below 1
    is what makes the solve converge for every geometry; `engine` asks for nothing else.
    """

    def send(self, z: Tensor) -> Tensor:
        """What the neighbours receive, linear in `z` [n_atoms, width of a message]."""

    def apply(self, z: Tensor, injection: Injection, neighbors: Tensor) -> Tensor:
        """`f(z)` [n_atoms, width]."""

    def linearize(self, z: Tensor, injection: Injection, neighbors: Tensor) -> tuple[Tensor, Tensor]:
        """`f(z)`, and the slope: which with the gates determines the Jacobian, each [n_atoms, width]."""

    def jvp(self, tangent: Tensor, slope: Tensor, gates: Tensor, neighbors: Tensor) -> Tensor:
        """`(∂f/∂z) t` [n_atoms, width]."""

    def vjp(self, cotangent: Tensor, slope: Tensor, gates_reversed: Tensor, neighbors: Tensor) -> Tensor:
        """`(∂f/∂z)ᵀ λ` [n_atoms, width], with the gates of `reverse_gates`.

        Every pair stands in the list of both its atoms, so the transposed sum over neighbours is again a sum over
        neighbours, with the gates of the reversed pairs: no scattered additions, and the same result on every run.
        """

    def injection_vjp(self, cotangent: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of `⟨λ, f(z)⟩` in `v` [n_atoms, width] and in the messages; the one in `u` is `λ`."""

    def gates_vjp(self, cotangent: Tensor, sent: Tensor, gates: Tensor, neighbors: Tensor) -> Tensor:
        """Derivative of `⟨g, m⟩` in the gates [n_rows, n_neighbors, n_gates].

        Args:
            cotangent: `g`, of the messages [n_rows, width of a message].
            sent: of `send` [n_atoms, width of a message].
            gates: [n_rows, n_neighbors, n_gates].
            neighbors: [n_rows, n_neighbors].
        """


class CellWeights(NamedTuple):
    """The cell of `ContractiveCell`: its matrices with their norms bounded, of each rank one; see `EquilibriumCell`."""

    w_send: tuple[Tensor, ...]
    w_mix: tuple[Tensor, ...]
    w_out: tuple[Tensor, ...]

    @classmethod
    def of_scalars(cls, w_send: Tensor, w_mix: Tensor, w_out: Tensor) -> "CellWeights":
        """Those of features without tensors."""
        return cls((w_send,), (w_mix,), (w_out,))

    @property
    def shape(self) -> FeatureShape:
        """Sizes of features and messages."""
        l_max = len(self.w_out) - 1
        return FeatureShape(self.w_out[0].shape[0], self.w_out[-1].shape[0] if l_max else 0, l_max)

    def sum_messages(self, gates: Tensor, sent: Tensor, neighbors: Tensor, *, transposed: bool = False) -> Tensor:
        """The messages [n_rows, width], see `aggregate`."""
        return aggregate(gates, sent, neighbors, self.shape, transposed=transposed)

    def send(self, z: Tensor) -> Tensor:
        """`W₀ z` [n_atoms, width of a message]."""
        return mapped(z, self.w_send)

    def preactivation(self, z: Tensor, messages: Tensor, v: Tensor) -> Tensor:
        """`v + W₁ [m ; z]` [n_atoms, width]."""
        shape = self.shape
        pairs = zip(split(messages, shape.n_sent, shape.l_max), split(z, shape.n_scalars, shape.l_max), strict=True)
        return v + mapped(join([torch.cat(pair, -1) for pair in pairs]), self.w_mix)

    def apply(self, z: Tensor, injection: Injection, neighbors: Tensor) -> Tensor:
        """See `EquilibriumCell.apply`."""
        return injection.u + mapped(norm_activation(self._inner(z, injection, neighbors), *self._ranks()), self.w_out)

    def linearize(self, z: Tensor, injection: Injection, neighbors: Tensor) -> tuple[Tensor, Tensor]:
        """See `EquilibriumCell.linearize`; the slope is that of `φ` at `v + W₁ [m ; z]`."""
        x, ranks = self._inner(z, injection, neighbors), self._ranks()
        return injection.u + mapped(norm_activation(x, *ranks), self.w_out), norm_activation_derivative(x, *ranks)

    def jvp(self, tangent: Tensor, slope: Tensor, gates: Tensor, neighbors: Tensor) -> Tensor:
        """See `EquilibriumCell.jvp`."""
        messages = self.sum_messages(gates, self.send(tangent), neighbors)
        inner = self.preactivation(tangent, messages, torch.zeros_like(tangent))
        return mapped(norm_activation_jvp(slope, inner, *self._ranks()), self.w_out)

    def vjp(self, cotangent: Tensor, slope: Tensor, gates_reversed: Tensor, neighbors: Tensor) -> Tensor:
        """See `EquilibriumCell.vjp`."""
        _, messages, own = self._pulled(cotangent, slope)
        received = self.sum_messages(gates_reversed, messages, neighbors, transposed=True)
        return own + mapped(received, transposed(self.w_send))

    def injection_vjp(self, cotangent: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """See `EquilibriumCell.injection_vjp`; the one in `v` is `s = φ' (γ W₂)ᵀ λ`."""
        inner, messages, _ = self._pulled(cotangent, slope)
        return inner, messages

    def gates_vjp(self, cotangent: Tensor, sent: Tensor, gates: Tensor, neighbors: Tensor) -> Tensor:
        """See `EquilibriumCell.gates_vjp`."""
        if self.shape.l_max == 0:
            return cotangent[:, None] * gathered(sent, neighbors)

        def received(gates: Tensor) -> Tensor:
            return self.sum_messages(gates, sent, neighbors)

        found: Tensor = torch.func.vjp(received, gates)[1](cotangent)[0]
        return found

    def _inner(self, z: Tensor, injection: Injection, neighbors: Tensor) -> Tensor:
        messages = self.sum_messages(injection.gates, self.send(z), neighbors)
        return self.preactivation(z, messages, injection.v)

    def _ranks(self) -> tuple[int, int]:
        return self.shape.n_scalars, self.shape.l_max

    def _pulled(self, cotangent: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Derivatives of `⟨λ, f(z)⟩` in `v`, in the messages, and in `z` at fixed messages."""
        shape = self.shape
        inner = norm_activation_jvp(slope, mapped(cotangent, transposed(self.w_out)), *self._ranks())
        both = split(mapped(inner, transposed(self.w_mix)), shape.n_sent + shape.n_scalars, shape.l_max)
        sizes = [shape.n_sent, *([shape.n_tensors] * shape.l_max)]
        return (
            inner,
            join([part[..., :n] for part, n in zip(both, sizes, strict=True)]),
            join([part[..., n:] for part, n in zip(both, sizes, strict=True)]),
        )


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


def method_of_cell(name: str) -> Callable[..., Any]:
    """A method of any `EquilibriumCell` as a function of the cell and of its arguments, for a compiler."""

    def function(cell: EquilibriumCell, *args: Any) -> Any:
        return getattr(cell, name)(*args)

    return function


def reverse_gates(gates: Tensor, reverse: Tensor) -> Tensor:
    """The gates of the same pairs seen from their other end [n_atoms, n_neighbors, n_gates].

    `reverse` is its own inverse, so every gate may be put where its partner stands: a compiler turns the reading of the
    partners' gates into a part of every sum that needs them, which is five times slower.
    """
    rows = gates.flatten(0, 1)
    return torch.empty_like(rows).index_copy(0, reverse.flatten(), rows).view_as(gates)
