"""SOAP: rotated problems are the same problem, and curvature does not slow it."""

import pytest
import torch
from torch import Tensor

from ase_andersonn.training.optimizer import SOAP

CURVATURES = torch.logspace(0, -2, 8, dtype=torch.float64)
TARGET = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def rotation(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]


def loss(w: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A quadratic with curvatures from 1 to 1e-4, its axes turned."""
    turned = left.T @ w @ right - TARGET
    return (turned.square() * CURVATURES[:, None] * CURVATURES[None]).sum()


def minimize(optimizer: torch.optim.Optimizer, w: Tensor, left: Tensor, right: Tensor, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1.0 - step / steps)
        optimizer.zero_grad()
        value = loss(w, left, right)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def start(n: int = 8) -> Tensor:
    return torch.zeros(n, n, dtype=torch.float64, requires_grad=True)


def test_turned_axes_do_not_slow_it() -> None:
    left, right = rotation(8, 1), rotation(8, 2)
    soap, adam = start(), start()
    found = minimize(SOAP([soap], lr=0.1), soap, left, right, 300)[-1]
    plain = minimize(torch.optim.Adam([adam], lr=0.1), adam, left, right, 300)[-1]
    assert found < 1e-3 * plain


def test_the_path_turns_with_the_axes() -> None:
    one, left, right = torch.eye(8, dtype=torch.float64), rotation(8, 3), rotation(8, 4)
    w, turned = start(), start()
    straight = minimize(SOAP([w], lr=0.1, every=1), w, one, one, 30)
    rotated = minimize(SOAP([turned], lr=0.1, every=1), turned, left, right, 30)
    assert rotated == pytest.approx(straight, rel=1e-6)


def test_the_first_moment_is_the_mean_of_the_gradients_however_the_axes_turn() -> None:
    w, mean = torch.zeros(5, 7, dtype=torch.float64, requires_grad=True), torch.zeros(5, 7, dtype=torch.float64)
    optimizer, generator = SOAP([w], lr=0.1, betas=(0.8, 0.9), every=3), torch.Generator().manual_seed(0)
    for step in range(20):
        w.grad = torch.randn(5, 7, dtype=torch.float64, generator=generator)
        optimizer.step()
        if step:  # the first sets up only
            mean.lerp_(w.grad, 0.2)
    state = optimizer.state[w]
    found = state["left_basis"] @ state["turned_mean"] @ state["right_basis"].T
    torch.testing.assert_close(found, mean, rtol=1e-10, atol=1e-10)


def test_vectors_get_adam() -> None:
    target = torch.linspace(-1, 1, 5, dtype=torch.float64)
    mine, reference = (torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    soap = SOAP([mine], lr=0.01, betas=(0.9, 0.99))
    adam = torch.optim.Adam([reference], lr=0.01, betas=(0.9, 0.99))
    mine.grad = torch.ones(5, dtype=torch.float64)
    soap.step()  # sets up only
    for _ in range(20):
        mine.grad, reference.grad = mine.detach() - target, reference.detach() - target
        soap.step()
        adam.step()
    torch.testing.assert_close(mine, reference, rtol=1e-6, atol=1e-9)


def test_long_sides_keep_their_axes() -> None:
    w = torch.zeros(3, 9, requires_grad=True)
    w.grad = torch.randn(3, 9)
    optimizer = SOAP([w], lr=0.1, max_size=4)
    optimizer.step()
    optimizer.step()
    assert set(optimizer.state[w]) == {"step", "turned_mean", "square", "left_average", "left_basis"}
    assert torch.isfinite(w).all()


def test_weights_decay() -> None:
    w = torch.ones(4, 4, requires_grad=True)
    optimizer = SOAP([w], lr=0.1, weight_decay=0.5)
    for _ in range(2):
        w.grad = torch.zeros(4, 4)
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((4, 4), 0.95))
