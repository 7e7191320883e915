"""SOAP: Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

For a matrix `W` with gradient `G`, moving averages `L` of `G Gᵀ` and `R` of `Gᵀ G` have eigenvectors `Q_L`, `Q_R`. Adam
is run on `Q_Lᵀ G Q_R`, where the curvature is nearly diagonal, and its step is turned back. Both moments are kept in
the turned axes; when these turn, the first turns with them. Vectors get plain Adam.

Source: Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, arXiv 2409.11321.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class SOAP(torch.optim.Optimizer):
    """`W ← W − η Q_L [m̂ / (√v̂ + ε)] Q_Rᵀ − η w W`.

    Args:
        params: parameters, or groups of them with their own settings.
        lr: η.
        betas: decay of the first and of the second moment.
        preconditioner_beta: decay of `L` and `R`.
        eps: ε.
        weight_decay: w.
        every: steps between two turns of the eigenbases.
        max_size: sides of a matrix longer than this are left as they are.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        preconditioner_beta: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        every: int = 10,
        max_size: int = 2048,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "preconditioner_beta": preconditioner_beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "every": every,
            "max_size": max_size,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step on the gradients at hand; a parameter's first gradient only sets up its eigenbases."""
        del closure
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if state:
                    _move(p, state, group)
                else:
                    state.update(_begin(p, group))


SIDES = ("left", "right")
# The bases are kept contiguous: a product's last bit depends on the layout, which a checkpoint does not keep.


def _begin(p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    assert p.grad is not None
    state = {"step": torch.zeros(()), "turned_mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
    for side, outer in zip(SIDES, _outer_products(p.grad), strict=False):
        if len(outer) <= group["max_size"]:
            state[f"{side}_average"] = outer
            state[f"{side}_basis"] = torch.linalg.eigh(outer.double())[1].flip(1).to(p.dtype).contiguous()
    return state


def _move(p: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    assert p.grad is not None
    first, second = group["betas"]
    state["step"] += 1
    t = int(state["step"])
    turned = _turn(p.grad, state)
    state["turned_mean"].lerp_(turned, 1.0 - first)
    state["square"].mul_(second).addcmul_(turned, turned, value=1.0 - second)
    change = state["turned_mean"] / (1.0 - first**t) / ((state["square"] / (1.0 - second**t)).sqrt() + group["eps"])
    p.mul_(1.0 - group["lr"] * group["weight_decay"])
    p.sub_(_turn(change, state, back=True), alpha=group["lr"])
    for side, outer in zip(SIDES, _outer_products(p.grad), strict=False):
        if f"{side}_average" in state:
            state[f"{side}_average"].lerp_(outer, 1.0 - group["preconditioner_beta"])
            if t % group["every"] == 0:
                _turn_basis(state, side)


def _outer_products(gradient: Tensor) -> tuple[Tensor, ...]:
    """`G Gᵀ` and `Gᵀ G` of a matrix, nothing of others."""
    return (gradient @ gradient.T, gradient.T @ gradient) if gradient.ndim == 2 else ()


def _turn(x: Tensor, state: dict[str, Tensor], *, back: bool = False) -> Tensor:
    """`Q_Lᵀ x Q_R`, or back `Q_L x Q_Rᵀ`."""
    left, right = state.get("left_basis"), state.get("right_basis")
    if left is not None:
        x = (left if back else left.T) @ x
    if right is not None:
        x = x @ (right.T if back else right)
    return x


def _turn_basis(state: dict[str, Tensor], side: str) -> None:
    """One step of the power method for the eigenvectors.

    The second moments are put in the same new order, the first are turned from the old axes to the new ones.
    """
    average, old = state[f"{side}_average"], state[f"{side}_basis"]
    order = (old * (average @ old)).sum(0).argsort(descending=True)
    new = torch.linalg.qr(average @ old[:, order])[0].contiguous()
    mean = state["turned_mean"]
    state["turned_mean"] = new.T @ (old @ mean) if side == "left" else (mean @ old.T) @ new
    state["square"] = state["square"].index_select(SIDES.index(side), order)
    state[f"{side}_basis"] = new


def make_optimizer(learnt: Mapping[str, nn.Parameter], rate: float, decay: float) -> SOAP:
    """SOAP that decays the weights of linear maps, and neither biases, gains nor embeddings."""
    decayed = [p for name, p in learnt.items() if is_decayed(name, p)]
    free = [p for name, p in learnt.items() if not is_decayed(name, p)]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]
    return SOAP(groups, lr=rate)


def is_decayed(name: str, p: Tensor) -> bool:
    """Whether a parameter is the matrix of a linear map."""
    return name.rsplit(".", 1)[-1] == "weight" and p.ndim >= 2
