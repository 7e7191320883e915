"""Vector–Jacobian products of a function, by autograd or as `torch.func` has them."""

from collections.abc import Callable

import torch
from torch import Tensor

Pullback = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


def pullback(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[tuple[Tensor, ...], Pullback]:
    """Outputs, and `c ↦ cᵀ ∂outputs/∂inputs`, which may be asked once.

    The same as `torch.func.vjp`, whose interpreter takes longer than the functions of a small structure; the compiler
    however reads nothing else.

    Args:
        function: of the inputs.
        inputs: what is differentiated with respect to.
    """
    if torch.compiler.is_compiling():
        traced: tuple[tuple[Tensor, ...], Pullback] = torch.func.vjp(function, *inputs)  # type: ignore[assignment]
        return traced
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = function(*leaves)

    def pull(cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = torch.autograd.grad(outputs, leaves, cotangents, materialize_grads=True)
        return found

    return tuple(x.detach() for x in outputs), pull
