"""Small building blocks: species-conditioned layers, bounded linear maps, a 1-Lipschitz activation."""

import torch
from torch import Tensor, nn

SILU_MAX_SLOPE = 1.0998394
"""The largest slope of `x sigmoid(x)`, rounded up."""


def silu(x: Tensor) -> Tensor:
    """`x sigmoid(x)`."""
    return nn.functional.silu(x)


def lipschitz_silu(x: Tensor) -> Tensor:
    """`silu(x)` divided by its largest slope, so that it never expands a distance."""
    return nn.functional.silu(x) * (1.0 / SILU_MAX_SLOPE)


def lipschitz_silu_slope(x: Tensor) -> Tensor:
    """The derivative of `lipschitz_silu`."""
    s = x.sigmoid()
    return s * (1.0 + x * (1.0 - s)) * (1.0 / SILU_MAX_SLOPE)


def soft_clip(x: Tensor, limit: float) -> Tensor:
    """`x / √(1 + (x / l)²)`: nearly `x` where `|x|` is well below the limit `l`, and never beyond it."""
    return x * (1.0 + (x * (1.0 / limit)).square()).rsqrt()


def bounded(weight: Tensor, bound: float = 1.0) -> Tensor:
    """`W min(1, bound / ‖W‖₂)`: the same map with its spectral norm held at or below `bound`.

    Args:
        weight: [n_out, n_in].
        bound: largest allowed singular value.
    """
    norm: Tensor = torch.linalg.matrix_norm(weight, 2)
    return weight * (bound / norm.clamp(min=bound))


class Affine(nn.Module):
    """`x W + b`, with the bias added apart from the product so that a compiler fuses it with what follows.

    Args:
        n_in, n_out: channels.
        bias: whether there is a `b`.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) * n_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., n_in] → [..., n_out]."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class SpeciesLinear(nn.Module):
    """`(W x) (1 + g_Z) + b_Z`: a linear layer whose gain and bias belong to the atom's species.

    Args:
        n_in, n_out: channels.
        n_species: number of species.
    """

    def __init__(self, n_in: int, n_out: int, n_species: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.gain = nn.Parameter(torch.zeros(n_species, n_out))
        self.bias = nn.Parameter(0.1 * torch.randn(n_species, n_out))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """x [n, n_in], species [n] → [n, n_out]."""
        y: Tensor = self.linear(x)
        return y * (1.0 + self.gain[species]) + self.bias[species]
