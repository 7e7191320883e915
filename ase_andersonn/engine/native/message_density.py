"""The density of messages with its products in C++, and its derivatives in geometry and messages."""

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.nn.message_density import MessageDensity

from .kernel import Kernel, call, parameters_of
from .products import ProductWeights


class _Weights(NamedTuple):
    value: Tensor
    products: ProductWeights


class MessageDensityKernel(Kernel):
    """The features of `MessageDensity`; called with its arguments.

    Args:
        layer: the layer.
    """

    has_gradient: ClassVar[tuple[int, ...]] = (0, 1, 2)

    def __init__(self, layer: MessageDensity) -> None:
        super().__init__()
        self.layer, self._modules = layer, tuple(layer.modules())

    def sources(self) -> Iterable[Tensor]:
        """See `Kernel.sources`."""
        return parameters_of(self._modules)

    def make_weights(self, dtype: torch.dtype) -> Any:
        """See `Kernel.make_weights`."""
        value = self.layer.value.weight.detach().to(dtype).contiguous()
        products = ProductWeights(self.layer.l_max, value.shape[1], self.layer.n_pairs, self.layer.bispectrum, dtype)
        return _Weights(value, products)

    def values(self, weights: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.values`."""
        features = inputs[0].new_empty((len(inputs[0]), self.layer.n_features))
        self._run(weights, inputs, features, *[None] * 4)
        return (features,)

    def gradients(self, weights: Any, inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.gradients`."""
        found = tuple(torch.empty_like(x) for x in inputs[:3])
        self._run(weights, inputs, None, *cotangents, *found)
        return found

    def _run(self, weights: _Weights, inputs: tuple[Tensor, ...], *others: Tensor | None) -> None:
        layer, (value, products) = self.layer, weights
        sizes = torch.get_num_threads(), *inputs[0].shape
        first = layer.n_radial, float(layer.cutoff), value, *products.arguments, *sizes
        call("message_density", *inputs, *others, first=first)
