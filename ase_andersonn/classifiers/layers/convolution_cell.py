"""Convolutional equilibrium cell along the rows of an image, a contraction by construction.

    f(z)_p = u_p + γ W φ(v_p + g_p ∘ Σ_t K_t z_(p+t)),    t = −s … s,    φ = tanh

On a row of n columns with zero padding, the convolution is a block of the circular one on N = n + 2s columns, whose
norm is the largest norm over its frequencies:

    ‖K ∗ z‖ ≤ max_k ‖Σ_t K_t e^(2πi k t / N)‖₂ ‖z‖,    k = 0 … N − 1

It is bounded by 1 (Sedghi, Gupta and Long, arXiv 1805.10408), and `0 < g < 1`, `|φ'| ≤ 1`, `‖W‖₂ ≤ 1`. Therefore `f` is
a contraction by γ in the Frobenius norm of a row, for any image.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import bounded


class ImageInjection(NamedTuple):
    """Injection of the image into the cell."""

    u: Tensor
    """Added to the features [n_atoms, n_neighbors, n_channels]."""
    v: Tensor
    """Added inside the nonlinearity [n_atoms, n_neighbors, n_channels]."""
    gates: Tensor
    """Factors of the convolution, 0 to 1 [n_atoms, n_neighbors, n_channels]."""


class ImageCellWeights(NamedTuple):
    """Matrices of the cell with bounded norms."""

    kernel: Tensor
    """`[K_−s … K_s]` [n_channels, size * n_channels]."""
    out: Tensor
    """`γ W` [n_channels, n_channels]."""


class ImageCell(nn.Module):
    """Parameters of the cell.

    Initially every `K_t` is the same rotation, hence a moving average of norm 1.

    Args:
        n_channels: channels of `z`.
        n_neighbors: largest number of columns of a row.
        size: columns under the kernel, odd.
        contraction: γ, in (0, 1).

    Raises:
        ValueError: if γ is not in (0, 1), or the size is even or not positive.
    """

    def __init__(self, n_channels: int, n_neighbors: int, size: int, contraction: float) -> None:
        super().__init__()
        if not 0.0 < contraction < 1.0:
            raise ValueError(f"contraction is {contraction}; a fixed point is guaranteed for values between 0 and 1.")
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the kernel has {size} columns; the number has to be odd.")
        self.n_neighbors, self.contraction = n_neighbors, contraction
        rotation = nn.init.orthogonal_(torch.empty(n_channels, n_channels))
        self.kernel = nn.Parameter(rotation.repeat(1, size) / size)
        self.out = nn.Parameter(nn.init.orthogonal_(torch.empty(n_channels, n_channels)))

    def weights(self) -> ImageCellWeights:
        """Matrices with bounded norms."""
        norm = convolution_norm(self.kernel, self.n_neighbors)
        return ImageCellWeights(self.kernel / norm.clamp(min=1.0), self.contraction * bounded(self.out))


def convolution_norm(kernel: Tensor, n_neighbors: int) -> Tensor:
    """Bound of the norm of `convolve` on rows of at most `n_neighbors` columns; see the module.

    Args:
        kernel: [n_channels, size * n_channels].
        n_neighbors: n.
    """
    n_channels = kernel.shape[0]
    blocks = kernel.unflatten(1, (-1, n_channels))
    symbols = torch.fft.rfft(blocks, n_neighbors + blocks.shape[1] - 1, dim=1).movedim(1, 0)
    norm: Tensor = torch.linalg.svdvals(symbols).amax()
    return norm


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
    return u + (v + gates * convolve(z, kernel)).tanh() @ out.T
