"""Exponential moving average of a module's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """`w̄_t = w̄_(t−1) + s_t (w_t − w̄_(t−1))`, `s_t = max(1 − d, 10 / (t + 9))`: a moving average without a biased start.

    It reaches back over the last tenth of the updates, and over `1 / (1 − d)` of them in a long run. As `s_1 = 1`,
    neither zeros nor the initial weights take part.

    Args:
        module: whose parameters are averaged.
        decay: d, 0 to 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the present weights into the average."""
        self.updates += 1
        share = max(1.0 - self.decay, 10.0 / (self.updates + 9))
        for name, p in module.named_parameters():
            self.average[name].lerp_(p, share)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with the averaged weights; its own come back at the end, bit for bit."""
        own = {name: p.detach().clone() for name, p in module.named_parameters()}
        _copy(self.average, module)
        try:
            yield
        finally:
            _copy(own, module)


@torch.no_grad()
def _copy(values: dict[str, Tensor], module: nn.Module) -> None:
    for name, p in module.named_parameters():
        p.copy_(values[name])
