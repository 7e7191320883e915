"""The neighbour attention in C++, with its derivative in the geometry."""

import ctypes
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ase_andersonn.nn.neighbor_attention import NeighborAttention

from .kernel import NAMES, Kernel, call, loaded, parameters_of, pointer
from .products import ProductWeights

INTEGERS = ("n_radial", "l_max", "n_edge", "n_token", "n_heads", "n_channels", "separable")
MATRICES = ("radial", "score", "value", "query", "attended", "direct", "gate", "weight")


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


class AttentionWeights:
    """The kernel's copy of the weights, freed with this.

    Args:
        attention: whose weights are copied.
        dtype: precision.

    Raises:
        MemoryError: without memory for it.
    """

    def __init__(self, attention: NeighborAttention, dtype: torch.dtype) -> None:
        self.handle: ctypes.c_void_p | None = None
        a, name, library = attention, NAMES[dtype], loaded()
        self.products = ProductWeights(a.l_max, a.center.shape[1], a.n_pairs, a.bispectrum, dtype)
        tensors: dict[str, Tensor] = {"center": a.center, "other": a.other, "angular": a.angular}
        if a.separable:
            tensors["factor"] = a.factor
        for matrix in MATRICES:
            layer = getattr(a, matrix)
            tensors[matrix] = layer.weight
            if layer.bias is not None:
                tensors[f"{matrix}_bias"] = layer.bias
        plain = {key: t.detach().to(dtype).contiguous() for key, t in tensors.items()}
        integers = (a.n_radial, a.l_max, a.center.shape[1], a.angular.shape[1], a.n_heads, a.gate.weight.shape[1])
        sizes = _Sizes(*integers, int(a.separable), a.cutoff)
        make, self._free = getattr(library, f"make_{name}"), getattr(library, f"free_{name}")
        make.restype = ctypes.c_void_p
        weights = _Weights(**{key: pointer(t) for key, t in plain.items()})
        n_species = ctypes.c_int64(len(a.center))
        made = make(ctypes.byref(sizes), ctypes.byref(weights), n_species, *self.products.arguments)
        if made is None:
            raise MemoryError("no memory for the weights of the compiled kernels")
        self.handle = ctypes.c_void_p(made)

    def __del__(self) -> None:
        if self.handle is not None:
            self._free(self.handle)


class AttentionKernel(Kernel):
    """Pooled neighbours, products of their density and message gates of `NeighborAttention`.

    Called with the arguments of `NeighborAttention` it gives pooled tokens, sums of the attention's weights, products
    and gates.

    Args:
        attention: the layer.
    """

    has_gradient: ClassVar[tuple[int, ...]] = (0, 1)

    def __init__(self, attention: NeighborAttention) -> None:
        super().__init__()
        self.attention, self._modules = attention, tuple(attention.modules())

    def sources(self) -> Iterable[Tensor]:
        """See `Kernel.sources`."""
        return parameters_of(self._modules)

    def make_weights(self, dtype: torch.dtype) -> Any:
        """See `Kernel.make_weights`."""
        return AttentionWeights(self.attention, dtype)

    def values(self, weights: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.values`."""
        a, r = self.attention, inputs[0]
        n_atoms, n_slots = r.shape
        sizes = (n_atoms, a.angular.shape[1]), (n_atoms, a.n_heads), (n_atoms, weights.products.n_features)
        outputs = tuple(r.new_empty(size) for size in (*sizes, (n_atoms, n_slots, a.gate.weight.shape[1])))
        self._run(weights, inputs, *outputs, *[None] * 6)
        return outputs

    def gradients(self, weights: Any, inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.gradients`."""
        found = torch.empty_like(inputs[0]), torch.empty_like(inputs[1])
        self._run(weights, inputs, *[None] * 4, *cotangents, *found)
        return found

    def _run(self, weights: AttentionWeights, inputs: tuple[Tensor, ...], *others: Tensor | None) -> None:
        call("attention", *inputs, *others, first=(weights.handle, torch.get_num_threads(), *inputs[0].shape))
