"""Rows that hold scalars and, behind them, irreducible tensors of ranks 1, 2, …: maps that keep the ranks apart.

    row = [s | t₁ | t₂ | …],    s [n_scalars],    t_l [2l + 1, n_tensors]

Packed as in `cartesian.py`, a tensor has the length of its numbers, so that the length of a row is a norm that no
rotation changes. Rows without tensors are plain features, and cost what these cost.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .blocks import lipschitz_silu, lipschitz_silu_slope


def dim(n_scalars: int, n_tensors: int, l_max: int) -> int:
    """Length of a row."""
    return n_scalars + n_tensors * ((l_max + 1) ** 2 - 1)


def split(rows: Tensor, n_scalars: int, l_max: int) -> list[Tensor]:
    """Scalars [..., n_scalars] and tensors [..., 2l + 1, n_tensors] of rows [..., width]."""
    if l_max == 0:
        return [rows]
    n_tensors = (rows.shape[-1] - n_scalars) // ((l_max + 1) ** 2 - 1)
    sizes = [n_scalars, *((2 * rank + 1) * n_tensors for rank in range(1, l_max + 1))]
    scalars, *tensors = torch.split(rows, sizes, -1)
    return [scalars, *(t.unflatten(-1, (2 * rank + 1, n_tensors)) for rank, t in enumerate(tensors, 1))]


def join(parts: Sequence[Tensor]) -> Tensor:
    """The rows that `split` took apart."""
    scalars, *tensors = parts
    return torch.cat([scalars, *(t.flatten(-2) for t in tensors)], -1) if tensors else scalars


def mapped(rows: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Each rank times its matrix, rows [..., width] → [..., width'].

    Args:
        rows: as many ranks as there are matrices.
        matrices: of each rank [n_out, n_in].
    """
    parts = split(rows, matrices[0].shape[1], len(matrices) - 1)
    return join([part @ matrix.T for part, matrix in zip(parts, matrices, strict=True)])


def transposed(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The matrices of the transposed map."""
    return [matrix.T for matrix in matrices]


def norm_activation(rows: Tensor, n_scalars: int, l_max: int) -> Tensor:
    """`silu(s) / 1.1` for scalars, `t / √(1 + |t|²)` for tensors: no distance is expanded."""
    scalars, *tensors = split(rows, n_scalars, l_max)
    return join([lipschitz_silu(scalars), *(t * _shrink(t) for t in tensors)])


def norm_activation_derivative(rows: Tensor, n_scalars: int, l_max: int) -> Tensor:
    """What `norm_activation_jvp` needs: the derivative for scalars, tensors as they are [..., width]."""
    scalars, *tensors = split(rows, n_scalars, l_max)
    return join([lipschitz_silu_slope(scalars), *tensors])


def norm_activation_jvp(slope: Tensor, tangent: Tensor, n_scalars: int, l_max: int) -> Tensor:
    """The derivative of `norm_activation` along a tangent, `s (ṫ − y (y · ṫ))` with `s = 1/√(1 + |t|²)` and `y = s t`.

    The Jacobian is symmetric: this is its transpose as well.

    Args:
        slope: of `norm_activation_derivative` [..., width].
        tangent: [..., width].
    """
    (factor, *tensors), (scalars, *tangents) = split(slope, n_scalars, l_max), split(tangent, n_scalars, l_max)
    parts = [factor * scalars]
    for tensor, along in zip(tensors, tangents, strict=True):
        shrink = _shrink(tensor)
        unit = tensor * shrink
        parts.append(shrink * (along - unit * (unit * along).sum(-2, keepdim=True)))
    return join(parts)


def _shrink(tensor: Tensor) -> Tensor:
    return (1.0 + tensor.square().sum(-2, keepdim=True)).rsqrt()
