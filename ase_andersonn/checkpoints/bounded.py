"""Models whose tensors are known before any large one is allocated."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LEAST = 2**20
"""Numbers of one tensor that are always allowed: 4 MiB."""
FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.randn, torch.rand, torch.arange)
"""Functions whose first arguments say how much they allocate."""


class TooLargeError(Exception):
    """A tensor would be larger than allowed."""


def shapes_of(make: Callable[[], Any], n_values: int) -> Any:
    """The model that `make` makes, whose tensors have the shapes and types, and no meaning.

    On the CPU where no tensor has more than `max(LEAST, 4 n_values)` numbers, else on torch's `meta` device without
    memory, whose arithmetic imports torch's compiler, which takes a second.

    Args:
        make: makes the model.
        n_values: numbers that the model's file holds.
    """
    try:
        with torch.random.fork_rng(devices=[]), _Bounded(max(LEAST, 4 * n_values)):
            return make()
    except TooLargeError:
        with torch.device("meta"):
            return make()


class _Bounded(TorchFunctionMode):
    """Raises TooLargeError in place of any larger tensor: factories before they allocate, other functions after.

    Args:
        limit: numbers of a tensor.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self._check(math.prod(n for n in size if isinstance(n, int)))
        elif func is torch.eye:
            self._check(args[0] ** 2)
        found = func(*args, **kwargs)
        if isinstance(found, Tensor):
            self._check(found.numel())
        return found

    def _check(self, n_values: int) -> None:
        if n_values > self.limit:
            raise TooLargeError(f"{n_values} numbers; {self.limit} are allowed")
