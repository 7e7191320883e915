"""Functions in C++ with first derivatives, as autograd functions."""

import ctypes
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .library import build, is_built, load

NAMES = {torch.float32: "f32", torch.float64: "f64"}
KINDS = (torch.int64, torch.bool)
"""Types of tensors that are no numbers of the function's precision."""


class Kernel(ABC):
    """A function of tensors that threads may share; its weights have no gradients.

    Weights are copied anew where they have changed, which writing through `.data` hides.

    Attributes:
        has_gradient: places of the inputs that have gradients.

    Raises:
        RuntimeError: where the library cannot be built or loaded.
    """

    has_gradient: ClassVar[tuple[int, ...]]

    def __init__(self) -> None:
        loaded()
        self._lock = threading.Lock()
        self._weights: tuple[Any, Any] = (None, None)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function's values."""
        found: tuple[Tensor, ...] = _Apply.apply(self, *inputs)  # type: ignore[no-untyped-call]
        return found

    @abstractmethod
    def sources(self) -> Iterable[Tensor]:
        """Tensors that the weights are made from."""

    @abstractmethod
    def make_weights(self, dtype: torch.dtype) -> Any:
        """The kernel's own form of the weights."""

    @abstractmethod
    def values(self, weights: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Outputs, with the weights of `make_weights`."""

    @abstractmethod
    def gradients(self, weights: Any, inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Gradients of the inputs at `has_gradient`."""

    def weights(self, dtype: torch.dtype) -> Any:
        """The present weights."""
        with self._lock:
            version = [(x.data_ptr(), None if x.is_inference() else x._version) for x in self.sources()]
            unknown = any(count is None for _, count in version)
            before, weights = self._weights
            if unknown or before != (dtype, version):
                weights = self.make_weights(dtype)
                self._weights = (dtype, version), weights
            return weights


def loaded() -> ctypes.CDLL:
    """The library.

    Raises:
        RuntimeError: where it cannot be built or loaded.
    """
    if not is_built():  # as in a worker on another machine
        build()
    library = load()
    if library is None:
        raise RuntimeError("the compiled kernels cannot be loaded; leave out compile='native'")
    return library


def call(name: str, *tensors: Tensor | None, first: tuple[Any, ...]) -> None:
    """Call a function of the library.

    Args:
        name: of the function.
        tensors: its last arguments; of one precision, but for whole numbers and masks. None is a null pointer.
        first: its first arguments; whole numbers are int64, tensors pointers.

    Raises:
        MemoryError: without memory for it.
        RuntimeError: without a library.
        TypeError: for a tensor of another precision.
    """
    kinds = [x.dtype for x in tensors if x is not None and x.dtype not in KINDS]
    if len(set(kinds)) != 1 or kinds[0] not in NAMES:
        raise TypeError(f"the kernel's tensors are of {kinds}; give all in float32, or all in float64.")
    function = getattr(load() or loaded(), f"{name}_{NAMES[kinds[0]]}")
    if not function(*map(_argument, (*first, *tensors))):
        raise MemoryError(f"no memory for the compiled kernel {name}")


class _Apply(torch.autograd.Function):
    # Without setup_context, which torch.func would need, and for which each call would be matched to a signature.
    @staticmethod
    def forward(ctx: Any, kernel: Kernel, *inputs: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(x.contiguous() for x in inputs)
        ctx.kernel, ctx.weights = kernel, kernel.weights(inputs[0].dtype)
        ctx.save_for_backward(*inputs)
        return kernel.values(ctx.weights, inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        found = ctx.kernel.gradients(ctx.weights, inputs, tuple(x.contiguous() for x in cotangents))
        gradients = dict(zip(ctx.kernel.has_gradient, found, strict=True))
        return None, *(gradients.get(k) for k in range(len(inputs)))


def parameters_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters of modules, without their submodules: `Module.parameters` takes as long as a small kernel."""
    return [p for module in modules for p in module._parameters.values() if p is not None]


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Address of the first number, or null."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _argument(value: Any) -> Any:
    if value is None or isinstance(value, Tensor):
        return pointer(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return ctypes.c_double(value) if isinstance(value, float) else value
