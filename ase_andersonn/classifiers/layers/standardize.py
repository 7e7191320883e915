"""Standardization of inputs by mean and standard deviation over the training data."""

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import soft_clip

STD_FLOOR = 1e-3
"""Added to the standard deviation, so that much smaller differences are not amplified."""
CLIP = 5.0
"""Number of standard deviations at which inputs are softly clipped."""


class Standardize(nn.Module):
    """`(x − x̄) / (σ + STD_FLOOR)`, softly clipped at `CLIP`; before `fit` mean 0 and scale 1.

    Args:
        n: number of inputs.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set mean and standard deviation from the rows of x [n_rows, n]."""
        self.mean.copy_(x.double().mean(0))
        self.std.copy_(x.double().std(0, correction=0) + STD_FLOOR)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., n] → [..., n]."""
        return soft_clip((x - self.mean) / self.std, CLIP)
