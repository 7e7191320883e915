"""Inputs in units of their spread over the training data."""

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import squashed

ALIKE = 1e-3
"""Added to the standard deviation: differences much smaller than this are not told apart."""
UNUSUAL = 5.0
"""Standard deviations from the mean at which inputs level off."""


class Standardize(nn.Module):
    """`(x − x̄) / (σ + ALIKE)`, levelling off at `UNUSUAL`; the identity up to there before `fit`.

    Args:
        n: number of inputs.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("spread", torch.ones(n))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Measure mean and spread over the rows of x [n_rows, n]."""
        self.mean.copy_(x.double().mean(0))
        self.spread.copy_(x.double().std(0, correction=0) + ALIKE)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., n] → [..., n]."""
        return squashed((x - self.mean) / self.spread, UNUSUAL)
