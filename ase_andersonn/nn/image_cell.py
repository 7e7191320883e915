"""The weight-tied convolution along the rows of an image: a contraction by construction.

    f(z)_p = u_p + γ W φ(v_p + g_p ∘ Σ_t K_t z_(p+t)),    t = −s … s

With the kernel's matrices side by side, `‖[K_−s … K_s]‖₂ ≤ 1/√(2s + 1)`: a site takes part in at most 2s + 1 windows,
so `‖K ∗ z‖ ≤ ‖z‖` in the Frobenius norm of a row, beyond whose ends z counts as 0. `0 < g < 1`, `|φ'| ≤ 1` and
`‖W‖₂ ≤ 1`. So `f` contracts by γ whatever the image holds. The bound is reached by kernels whose matrices are alike.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import bounded, lipschitz_silu


class ImageInjection(NamedTuple):
    """What the image gives to the cell."""

    u: Tensor
    """Added to the features [n_atoms, n_neighbors, n_channels]."""
    v: Tensor
    """Added inside the nonlinearity [n_atoms, n_neighbors, n_channels]."""
    gates: Tensor
    """Factors of the convolution, 0 to 1 [n_atoms, n_neighbors, n_channels]."""


class ImageCellWeights(NamedTuple):
    """The cell's matrices with their norms bounded."""

    kernel: Tensor
    """`[K_−s … K_s]` [n_channels, size * n_channels]."""
    out: Tensor
    """`γ W` [n_channels, n_channels]."""


class ImageCell(nn.Module):
    """The matrices of the cell.

    Args:
        n_channels: channels of `z`.
        size: columns under the kernel, odd.
        contraction: γ, in (0, 1).

    Raises:
        ValueError: if γ is not in (0, 1), or the size is even or not positive.
    """

    def __init__(self, n_channels: int, size: int, contraction: float) -> None:
        super().__init__()
        if not 0.0 < contraction < 1.0:
            raise ValueError(f"contraction is {contraction}; a fixed point is guaranteed for values between 0 and 1.")
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the kernel has {size} columns; it takes an odd number, for it has a centre.")
        self.size, self.contraction = size, contraction
        self.kernel = nn.Parameter(nn.init.orthogonal_(torch.empty(n_channels, size * n_channels)))
        self.out = nn.Parameter(nn.init.orthogonal_(torch.empty(n_channels, n_channels)))

    def weights(self) -> ImageCellWeights:
        """The matrices, bounded."""
        return ImageCellWeights(bounded(self.kernel, 1.0 / math.sqrt(self.size)), self.contraction * bounded(self.out))


def convolve(z: Tensor, kernel: Tensor) -> Tensor:
    """`Σ_t K_t z_(p+t)` [n_atoms, n_neighbors, n_channels].

    Args:
        z: [n_atoms, n_neighbors, n_channels].
        kernel: [n_channels, size * n_channels].
    """
    n = z.shape[1]
    size = kernel.shape[1] // z.shape[2]
    padded = nn.functional.pad(z, (0, 0, size // 2, size // 2))
    return torch.cat([padded[:, t : t + n] for t in range(size)], -1) @ kernel.T


def apply_image_cell(z: Tensor, u: Tensor, v: Tensor, gates: Tensor, kernel: Tensor, out: Tensor) -> Tensor:
    """`f(z)` [n_atoms, n_neighbors, n_channels]; arguments as in `ImageInjection` and `ImageCellWeights`."""
    return u + lipschitz_silu(v + gates * convolve(z, kernel)) @ out.T
