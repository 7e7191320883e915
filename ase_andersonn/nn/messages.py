"""What an atom's neighbours tell it: sums over neighbours whose operators have norms that add up to at most 1.

Scalars are weighted channel by channel, `m_i = Σ_k a_ik ∘ h_k`. Tensors are carried over and, seen along the bond `u`,
turned into one another,

    m_l = Σ_k α_k [w_kl t_kl + e_kl Y_l(u) p_k],    p_k = r_k0 s'_k + Σ_l r_kl Y_l(u) · t_kl,

with `s'` a second set of scalars, which get `Σ_k α_k e_k0 p_k`. Ranks mix freely as the bond sees them, at the price
of two contractions with `Y`. For each bond and channel `max_l |w_l| ≤ σ`, `|e| ≤ 1 − σ` and `|r| ≤ 1`, so that the
operator's norm is at most 1; `Σ_k α_k ≤ 1` bounds the sum.

Rows of features are those of `ranks.py`, here with `n_scalars + n_tensors` scalars. The *gates* hold the coefficients:
`[a | w₁ … | e₀ e₁ … | r₀ r₁ … | Y₁ …]`, everything but `r` and `Y` with its `α`. Reversed, the sum over neighbours is
the same with `e` and `r` exchanged, by the gates of the reversed pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .angular import degrees


class Shape(NamedTuple):
    """Sizes of the messages.

    Attributes:
        n_scalars: scalars that are weighted one by one.
        n_tensors: tensors of each rank from 1 on.
        l_max: highest rank; 0 for scalars alone.
    """

    n_scalars: int
    n_tensors: int
    l_max: int

    @property
    def n_sent(self) -> int:
        """Scalars that are sent, of both sets."""
        return self.n_scalars + (self.n_tensors if self.l_max else 0)

    @property
    def n_coefficients(self) -> int:
        """Coefficients of a bond."""
        return self.n_scalars + self.n_tensors * (self.l_max + 2 * (self.l_max + 1 if self.l_max else 0))

    @property
    def n_gates(self) -> int:
        """Coefficients and harmonics of a bond."""
        return self.n_coefficients + (self.l_max + 1) ** 2 - 1


def aggregate(gates: Tensor, sent: Tensor, neighbors: Tensor, shape: Shape, *, transposed: bool = False) -> Tensor:
    """The messages [n_rows, width of `sent`].

    Args:
        gates: [n_rows, n_neighbors, n_gates].
        sent: `[h | s' | t₁ | …]` [n_atoms, width].
        neighbors: [n_rows, n_neighbors].
        shape: sizes.
        transposed: exchange `e` and `r`, for the transposed map with the gates of the reversed pairs.
    """
    if shape.l_max == 0:
        return (gates * sent[neighbors]).sum(1)
    c = _coefficients(gates, shape)
    emit, read = (c.read, c.emit) if transposed else (c.emit, c.read)
    plain, others, tensors = _sent(sent, shape)
    plain, others, tensors = plain[neighbors], others[neighbors], tensors[neighbors]
    rank = torch.tensor(degrees(shape.l_max)[1:], device=sent.device)
    y = c.y[..., None]
    seen = read[..., 0, :] * others + (read[..., rank, :] * y * tensors).sum(2)
    received = c.carry[..., rank - 1, :] * tensors + emit[..., rank, :] * y * seen[..., None, :]
    return torch.cat(
        [(c.scale * plain).sum(1), (emit[..., 0, :] * seen).sum(1), received.sum(1).flatten(1)],
        -1,
    )


class _Coefficients(NamedTuple):
    """`a` [..., n_scalars], `w`, `e`, `r` [..., n_ranks, n_tensors], the last two with rank 0, and `Y`."""

    scale: Tensor
    carry: Tensor
    emit: Tensor
    read: Tensor
    y: Tensor


def _coefficients(gates: Tensor, shape: Shape) -> _Coefficients:
    n, l_max = shape.n_tensors, shape.l_max
    sizes = [shape.n_scalars, l_max * n, (l_max + 1) * n, (l_max + 1) * n, (l_max + 1) ** 2 - 1]
    scale, carry, emit, read, y = gates.split(sizes, -1)
    carry, emit, read = (x.unflatten(-1, (-1, n)) for x in (carry, emit, read))
    return _Coefficients(scale, carry, emit, read, y)


def _sent(sent: Tensor, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """`h` [n, n_scalars], `s'` [n, n_tensors] and tensors of all ranks [n, (l_max + 1)² − 1, n_tensors]."""
    sizes = [shape.n_scalars, shape.n_tensors, shape.n_tensors * ((shape.l_max + 1) ** 2 - 1)]
    plain, others, tensors = sent.split(sizes, -1)
    return plain, others, tensors.unflatten(-1, (-1, shape.n_tensors))
