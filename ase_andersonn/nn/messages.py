"""Messages: sums over neighbours whose operators have norms that add up to at most 1.

Scalars are weighted channel by channel, `m_i = Σ_k a_ik ∘ h_k`. Tensors are carried over and, seen along the bond `u`,
turned into one another,

    m_l = Σ_k α_k [w_kl t_kl + e_kl Y_l(u) p_k],    p_k = r_k0 s'_k + Σ_l r_kl Y_l(u) · t_kl,

with `s'` a second set of scalars, which get `Σ_k α_k e_k0 p_k`. Ranks mix freely as the bond sees them, at the price
of two contractions with `Y`. For each bond and channel `max_l |w_l| ≤ σ`, `|e| ≤ 1 − σ` and `|r| ≤ 1`, so that the
operator's norm is at most 1; `Σ_k α_k ≤ 1` bounds the sum.

Rows of features are those of `irreps.py`, here with `n_scalars + n_tensors` scalars. The *gates* hold the coefficients:
`[a | w₁ … | e₀ e₁ … | r₀ r₁ … | Y₁ …]`, everything but `r` and `Y` with its `α`. Reversed, the sum over neighbours is
the same with `e` and `r` exchanged, by the gates of the reversed pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .irreps import join, split


class FeatureShape(NamedTuple):
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


def gathered(rows: Tensor, index: Tensor) -> Tensor:
    """`rows[index]` [..., width] of rows [n, width], several times faster on a CPU, and so is its derivative."""
    return rows.index_select(0, index.flatten()).view(*index.shape, rows.shape[1])


def aggregate(
    gates: Tensor, sent: Tensor, neighbors: Tensor, shape: FeatureShape, *, transposed: bool = False
) -> Tensor:
    """The messages [n_rows, width of `sent`].

    Args:
        gates: [n_rows, n_neighbors, n_gates].
        sent: `[h | s' | t₁ | …]` [n_atoms, width].
        neighbors: [n_rows, n_neighbors].
        shape: sizes.
        transposed: exchange `e` and `r`, for the transposed map with the gates of the reversed pairs.
    """
    if shape.l_max == 0:
        return (gates * gathered(sent, neighbors)).sum(1)
    c = _coefficients(gates, shape)
    emit, read = (c.read, c.emit) if transposed else (c.emit, c.read)
    scalars, *tensors = split(gathered(sent, neighbors), shape.n_sent, shape.l_max)
    plain, others = scalars.split([shape.n_scalars, shape.n_tensors], -1)
    seen = read[0] * others
    for r, y, tensor in zip(read[1:], c.y, tensors, strict=True):
        seen = seen + r * (y * tensor).sum(2)
    received = [
        (w[:, :, None] * tensor + y * (e * seen)[:, :, None]).sum(1)
        for w, e, y, tensor in zip(c.carry, emit[1:], c.y, tensors, strict=True)
    ]
    return join([torch.cat([(c.scale * plain).sum(1), (emit[0] * seen).sum(1)], -1), *received])


class _Coefficients(NamedTuple):
    """`a`, and of each rank `w`, `e`, `r` [..., n_tensors], the last two from rank 0 on, and `Y` [..., 2l + 1, 1]."""

    scale: Tensor
    carry: tuple[Tensor, ...]
    emit: tuple[Tensor, ...]
    read: tuple[Tensor, ...]
    y: list[Tensor]


def _coefficients(gates: Tensor, shape: FeatureShape) -> _Coefficients:
    n, l_max = shape.n_tensors, shape.l_max
    sizes = [shape.n_scalars, l_max * n, (l_max + 1) * n, (l_max + 1) * n, (l_max + 1) ** 2 - 1]
    scale, carry, emit, read, y = gates.split(sizes, -1)
    harmonics = y[..., None].split([2 * rank + 1 for rank in range(1, l_max + 1)], -2)
    return _Coefficients(scale, carry.split(n, -1), emit.split(n, -1), read.split(n, -1), list(harmonics))
