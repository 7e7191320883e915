"""The encoding with its derivatives, first and second, each of them one piece for a compiler.

What a compiler makes of a function cannot be differentiated twice, as a loss of the forces needs. So each derivative of
the encoding `x(d, w)` of edge vectors `d` and weights `w` is a function by itself:

    pull      ∂⟨c, x⟩/∂d                   the forces, with the cotangent c = ∂L/∂x
    gradient  ∂⟨c, x⟩/∂w                   of a loss, with its cotangent c
    second    ∂⟨ḋ, pull⟩/∂c, ∂⟨ḋ, pull⟩/∂w  of a loss of the forces, with its cotangent ḋ

Uncompiled they take twice as long as back-propagation through the encoding, which keeps what they compute again;
compiled half as long.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.potentials.base import EnergyModel

from .functions import Functions, WithWeights

Encoded = tuple[Tensor, ...]
"""`u`, `v`, gates and pair energies, or cotangents of these."""
Weights = dict[str, Tensor]


class Edges(NamedTuple):
    """The encoding's arguments; as in `Functions.encode`."""

    vectors: Tensor
    species: Tensor
    neighbors: Tensor
    mask: Tensor


class EncodingGradients:
    """The derivatives of one model's encoding.

    Args:
        model: the model; its weights are read at every call of `pull`.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.encoding = WithWeights(model, Functions(model).encode)

    def weights(self) -> Weights:
        """The weights that are learnt, by name."""
        return {name: p for name, p in self.encoding.model.named_parameters() if p.requires_grad}

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
        encoded = self.encoding.call(weights, *edges)
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
        job = _Job(self, Edges(vectors.detach(), species, neighbors, mask), tuple(weights))
        found: Encoded = _Encode.apply(job, vectors, *weights.values())  # type: ignore[no-untyped-call]
        return found


class _Job(NamedTuple):
    """Inputs of the derivatives beside the weights."""

    functions: CompiledEncoding
    edges: Edges
    names: tuple[str, ...]

    def named(self, weights: Sequence[Tensor]) -> Weights:
        return dict(zip(self.names, weights, strict=True))

    def in_order(self, gradients: Weights) -> list[Tensor]:
        return [gradients[name] for name in self.names]


class _Encode(torch.autograd.Function):
    """The encoding; backward in the edge vectors where a graph is made of it, else in the weights."""

    @staticmethod
    def forward(ctx: Any, job: _Job, _vectors: Tensor, *weights: Tensor) -> Encoded:
        ctx.job = job
        ctx.save_for_backward(*weights)  # refuses what was changed in place before the backward pass
        encoded: Encoded = job.functions.encode(*job.edges)
        return encoded

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        job: _Job = ctx.job
        weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            pulled = _Pull.apply(job, *cotangents, *weights)  # type: ignore[no-untyped-call]
            return None, pulled, *(None for _ in weights)
        return None, None, *job.in_order(job.functions.gradient(job.named(weights), cotangents, job.edges))


class _Pull(torch.autograd.Function):
    """The gradient of the encoding in the edge vectors; backward in its cotangents and in the weights."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *others: Tensor) -> Tensor:
        ctx.job = job
        ctx.save_for_backward(*others)
        pulled: Tensor = job.functions.pull(others[: len(others) - len(job.names)], job.edges)
        return pulled

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> Any:
        job: _Job = ctx.job
        n = len(ctx.saved_tensors) - len(job.names)
        cotangents, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        gradients, of_cotangents = job.functions.second(job.named(weights), cotangents, direction, job.edges)
        return None, *of_cotangents, *job.in_order(gradients)
