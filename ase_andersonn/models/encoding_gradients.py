"""The encoding with its derivatives, first and second, each of them one piece for a compiler.

What a compiler makes of a function cannot be differentiated twice, as a loss of the forces needs. So each derivative of
the encoding `x(d, w)` of edge vectors `d` and weights `w` is a function by itself:

    pull      ∂⟨c, x⟩/∂d                   the forces, with the cotangent c = ∂L/∂x
    gradient  ∂⟨c, x⟩/∂w                   of a loss, with its cotangent c
    second    ∂⟨ḋ, pull⟩/∂c, ∂⟨ḋ, pull⟩/∂w  of a loss of the forces, with its cotangent ḋ

Uncompiled they take twice as long as back-propagation through the encoding, which keeps what they compute again;
compiled half as long.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import EnergyModel
from .functions import Functions

Encoded = tuple[Tensor, ...]
"""`u`, `v`, gates and pair energies, or cotangents of these."""
Weights = dict[str, Tensor]


class Edges(NamedTuple):
    """The encoding's arguments; as in `Functions.encode`."""

    vectors: Tensor
    species: Tensor
    neighbors: Tensor
    mask: Tensor


class _Encoding(nn.Module):
    """The encoding as a module, for `torch.func.functional_call`."""

    def __init__(self, model: EnergyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *edges: Tensor) -> Encoded:
        return Functions(self.model).encode(*edges)


class EncodingGradients:
    """The derivatives of one model's encoding.

    Args:
        model: the model; its weights are read at every call of `pull`.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.encoding = _Encoding(model)

    def weights(self) -> Weights:
        """The weights that are learnt, by name."""
        return {name: p for name, p in self.encoding.named_parameters() if p.requires_grad}

    def pull(self, cotangents: Encoded, edges: Edges) -> Tensor:
        """`∂⟨c, x⟩/∂d` [n_atoms, n_neighbors, 3]."""
        return self._pulled({}, cotangents, edges)

    def gradient(self, weights: Weights, cotangents: Encoded, edges: Edges) -> Weights:
        """`∂⟨c, x⟩/∂w`."""
        found: Weights = torch.func.grad(lambda w: self._along(w, cotangents, edges))(weights)
        return found

    def second(self, weights: Weights, cotangents: Encoded, direction: Tensor, edges: Edges) -> tuple[Weights, Encoded]:
        """`∂⟨ḋ, ∂⟨c, x⟩/∂d⟩` in `w` and in `c`, for `ḋ` [n_atoms, n_neighbors, 3]."""

        def along(weights: Weights, cotangents: Encoded) -> Tensor:
            return (direction * self._pulled(weights, cotangents, edges)).sum()

        found: tuple[Weights, Encoded] = torch.func.grad(along, argnums=(0, 1))(weights, cotangents)
        return found

    def _along(self, weights: Weights, cotangents: Encoded, edges: Edges) -> Tensor:
        encoded = torch.func.functional_call(self.encoding, weights, tuple(edges))
        return torch.stack([(c * x).sum() for c, x in zip(cotangents, encoded, strict=True)]).sum()

    def _pulled(self, weights: Weights, cotangents: Encoded, edges: Edges) -> Tensor:
        found: Tensor = torch.func.grad(lambda d: self._along(weights, cotangents, edges._replace(vectors=d)))(
            edges.vectors
        )
        return found


class CompiledEncoding:
    """`Functions.encode`, compiled, with gradients in the edge vectors and of these in the weights.

    Args:
        model: the model.
        compiled: what compiles a function.
    """

    def __init__(self, model: EnergyModel, compiled: Callable[[Any], Any]) -> None:
        gradients = EncodingGradients(model)
        self.weights = gradients.weights
        self.encode = compiled(Functions(model).encode)
        self.pull = compiled(gradients.pull)
        self.gradient = compiled(gradients.gradient)
        self.second = compiled(gradients.second)

    def __call__(self, vectors: Tensor, species: Tensor, neighbors: Tensor, mask: Tensor) -> Encoded:
        """`u`, `v`, gates and pair energies of all atoms.

        A gradient in the edge vectors is asked for with `create_graph=True`, one in the weights without it.
        """
        weights = self.weights()
        found: Encoded = _Encode.apply(  # type: ignore[no-untyped-call]
            self, tuple(weights), species, neighbors, mask, vectors, *weights.values()
        )
        return found


N_ENCODED = 4


class _Encode(torch.autograd.Function):
    """The encoding; backward in the edge vectors where a graph is made of it, else in the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        functions: CompiledEncoding,
        names: tuple[str, ...],
        species: Tensor,
        neighbors: Tensor,
        mask: Tensor,
        vectors: Tensor,
        *weights: Tensor,
    ) -> Encoded:
        ctx.functions, ctx.names = functions, names
        ctx.save_for_backward(species, neighbors, mask, vectors, *weights)
        encoded: Encoded = functions.encode(vectors, species, neighbors, mask)
        return encoded

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        species, neighbors, mask, vectors, *weights = ctx.saved_tensors
        rest = ctx.functions, ctx.names, species, neighbors, mask, vectors
        if torch.is_grad_enabled():
            pulled = _Pull.apply(*rest, *cotangents, *weights)  # type: ignore[no-untyped-call]
            return None, None, None, None, None, pulled, *(None for _ in weights)
        edges = Edges(vectors.detach(), species, neighbors, mask)
        gradients = ctx.functions.gradient(dict(zip(ctx.names, weights, strict=True)), cotangents, edges)
        return None, None, None, None, None, None, *(gradients[name] for name in ctx.names)


class _Pull(torch.autograd.Function):
    """The gradient of the encoding in the edge vectors; backward in its cotangents and in the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        functions: CompiledEncoding,
        names: tuple[str, ...],
        species: Tensor,
        neighbors: Tensor,
        mask: Tensor,
        vectors: Tensor,
        *others: Tensor,
    ) -> Tensor:
        ctx.functions, ctx.names = functions, names
        ctx.save_for_backward(species, neighbors, mask, vectors, *others)
        pulled: Tensor = functions.pull(others[:N_ENCODED], Edges(vectors.detach(), species, neighbors, mask))
        return pulled

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> Any:
        species, neighbors, mask, vectors, *others = ctx.saved_tensors
        cotangents, weights = tuple(others[:N_ENCODED]), dict(zip(ctx.names, others[N_ENCODED:], strict=True))
        edges = Edges(vectors.detach(), species, neighbors, mask)
        gradients, of_cotangents = ctx.functions.second(weights, cotangents, direction, edges)
        return None, None, None, None, None, None, *of_cotangents, *(gradients[name] for name in ctx.names)
