"""The neighbour attention in C++, with its derivative in the geometry."""

import copy
import ctypes
import threading
from typing import Any

import torch
from torch import Tensor

from ase_andersonn.nn.neighbor_attention import NeighborAttention
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.deq_attention import DEQAttention

from .library import build, is_built, load

NAMES = {torch.float32: "f32", torch.float64: "f64"}
INTEGERS = ("n_radial", "l_max", "n_edge", "n_token", "n_heads", "n_channels", "separable")
MATRICES = ("radial", "score", "value", "query", "attended", "direct", "gate", "weight")
MAX_HEADS, MAX_DEGREE = 64, 9
"""Attention heads and degrees of spherical harmonics that the kernel has room for."""


class _Sizes(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in INTEGERS), ("cutoff", ctypes.c_double)]


class _Weights(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            *("center", "other", "factor", "radial", "score", "score_bias", "value", "value_bias", "query"),
            *("query_bias", "angular", "attended", "direct", "direct_bias", "gate", "gate_bias", "weight"),
            "weight_bias",
        )
    ]


def has_kernel(model: EnergyModel, device: torch.device) -> bool:
    """Whether the kernel computes what the model's attention does."""
    if type(model) is not DEQAttention or device.type != "cpu":
        return False
    return model.attention.n_heads <= MAX_HEADS and model.attention.l_max <= MAX_DEGREE


def check_kernel(model: EnergyModel, device: torch.device) -> None:
    """Raise ValueError for a model or device without a kernel."""
    if not has_kernel(model, device):
        kind = f"a {type(model).__name__} on {device}"
        raise ValueError(f"compile is 'native', of which {kind} has no kernels; use 'auto', True or False.")


def with_kernel(model: EnergyModel, device: torch.device) -> EnergyModel:
    """The model with its attention in C++; weights are shared, and have no gradients.

    Raises:
        ValueError: for a model or device without a kernel.
        RuntimeError: where the library cannot be built or loaded.
    """
    check_kernel(model, device)
    assert isinstance(model, DEQAttention)
    found, attention = copy.copy(model), copy.copy(model.attention)
    attention.kernel = AttentionKernel(model.attention)
    found._modules = {**model._modules, "attention": attention}
    return found


class _KernelWeights:
    """The kernel's copy of the weights, freed with this.

    Args:
        library: the compiled kernels.
        name: of the precision, see `NAMES`.
        attention: whose weights are copied.

    Raises:
        MemoryError: without memory for it.
    """

    def __init__(self, library: ctypes.CDLL, name: str, attention: NeighborAttention) -> None:
        self.handle: ctypes.c_void_p | None = None
        a = attention
        tensors: dict[str, Tensor] = {"center": a.center, "other": a.other, "angular": a.angular}
        if a.separable:
            tensors["factor"] = a.factor
        for matrix in MATRICES:
            layer = getattr(a, matrix)
            tensors[matrix] = layer.weight
            if layer.bias is not None:
                tensors[f"{matrix}_bias"] = layer.bias
        plain = {key: t.detach().contiguous() for key, t in tensors.items()}
        integers = (a.n_radial, a.l_max, a.center.shape[1], a.angular.shape[1], a.n_heads, a.gate.weight.shape[1])
        sizes = _Sizes(*integers, int(a.separable), a.cutoff)
        make, self._free = getattr(library, f"make_{name}"), getattr(library, f"free_{name}")
        make.restype = ctypes.c_void_p
        weights = _Weights(**{key: t.data_ptr() for key, t in plain.items()})
        made = make(ctypes.byref(sizes), ctypes.byref(weights), ctypes.c_int64(len(a.center)))
        if made is None:
            raise MemoryError("no memory for the weights of the compiled kernels")
        self.handle = ctypes.c_void_p(made)

    def __del__(self) -> None:
        if self.handle is not None:
            self._free(self.handle)


class AttentionKernel:
    """Pooled neighbours and message gates of `NeighborAttention`, in C++; threads may share it.

    Args:
        attention: the layer; its weights are copied anew where they have changed, which writing through `.data` hides.

    Raises:
        RuntimeError: where the library cannot be built or loaded.
    """

    def __init__(self, attention: NeighborAttention) -> None:
        if not is_built():  # as in a worker on another machine
            build()
        library = load()
        if library is None:
            raise RuntimeError("the compiled kernels cannot be loaded; leave out compile='native'")
        self.library, self.attention = library, attention
        self._lock = threading.Lock()
        self._weights: tuple[Any, _KernelWeights | None] = (None, None)

    def __call__(self, r: Tensor, unit: Tensor, species: Tensor, near: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Pooled tokens, sums of the attention's weights, density, gates; arguments as of `NeighborAttention`."""
        found: tuple[Tensor, ...] = _Attention.apply(self, r, unit, species, near, mask)  # type: ignore[no-untyped-call]
        return found

    def run(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...] = (),
        cotangents: tuple[Tensor, ...] = (),
        gradients: tuple[Tensor, ...] = (),
    ) -> None:
        """Fill the outputs, or the gradients of `r` and `unit` from cotangents of the outputs."""
        name, (n_atoms, n_slots) = NAMES[inputs[0].dtype], inputs[-1].shape
        if (kinds := [x.dtype for x in inputs[2:]]) != [torch.int64, torch.int64, torch.bool]:
            raise TypeError(f"species, neighbours and mask are {kinds}; int64, int64 and bool are needed.")
        tensors = [*inputs, *(outputs or [None] * 4), *(cotangents or [None] * 4), *(gradients or [None] * 2)]
        sizes = (torch.get_num_threads(), n_atoms, n_slots)
        weights = self._current_weights(name)
        run = getattr(self.library, f"run_{name}")
        if not run(weights.handle, *map(ctypes.c_int64, sizes), *map(_pointer, tensors)):
            raise MemoryError(f"no memory for the neighbour attention of {n_atoms} atoms")

    def shapes(self, n_atoms: int, n_slots: int) -> tuple[tuple[int, ...], ...]:
        """Of the four outputs."""
        a = self.attention
        n_token, n_edge = a.angular.shape[1], a.center.shape[1]
        density = (n_atoms, (a.l_max + 1) ** 2, n_edge)
        return (n_atoms, n_token), (n_atoms, a.n_heads), density, (n_atoms, n_slots, a.gate.weight.shape[1])

    def _current_weights(self, name: str) -> _KernelWeights:
        with self._lock:
            version = [(p.data_ptr(), None if p.is_inference() else p._version) for p in self.attention.parameters()]
            unknown = any(count is None for _, count in version)
            before, weights = self._weights
            if weights is None or unknown or before != (name, version):
                weights = _KernelWeights(self.library, name, self.attention)
                self._weights = (name, version), weights
            return weights


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(kernel: AttentionKernel, *inputs: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(x.contiguous() for x in inputs)
        outputs = tuple(inputs[0].new_empty(shape) for shape in kernel.shapes(*inputs[-1].shape))
        kernel.run(inputs, outputs=outputs)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.kernel = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        r_bar, unit_bar = _Gradient.apply(ctx.kernel, *ctx.saved_tensors, *cotangents)  # type: ignore[no-untyped-call]
        return None, r_bar, unit_bar, None, None, None


class _Gradient(torch.autograd.Function):
    """The backward pass as a function of its own, as torch.func wants what it may not look into."""

    @staticmethod
    def forward(kernel: AttentionKernel, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(x.contiguous() for x in tensors[:5])
        gradients = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
        kernel.run(inputs, cotangents=tuple(x.contiguous() for x in tensors[5:]), gradients=gradients)
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        raise NotImplementedError("the attention in C++ has first derivatives alone; use compile=False")


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
