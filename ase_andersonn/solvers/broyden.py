"""Limited-memory good Broyden method for r(z) = f(z) - z = 0.

    B_0 = -I,    B_{k+1} = B_k + r_{k+1} s_k^T / |s_k|^2,    s_{k+1} = -B_{k+1}^{-1} r_{k+1}

By Sherman and Morrison the inverse is a product of rank-one factors made of the steps s_k alone, so that one vector per
iteration is stored; the chain of factors is restarted after ``window`` factors.

Broyden, Math. Comput. 19, 577 (1965); Kelley, Iterative Methods for Linear and Nonlinear Equations (SIAM 1995), ch. 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .base import Point, Segments, dots, per_row, select

SMALLEST_DENOMINATOR = 1e-2  # of the rank-one update; below it the step would be over a hundred times the Picard step


@dataclass
class BroydenState:
    """Ring buffer of steps; ``valid`` [n, window] marks those of a problem's chain. Modified in place."""

    segments: Segments | None
    steps: Tensor
    squares: Tensor
    valid: Tensor
    damping: Tensor
    capped: Tensor
    slot: int = -1

    def chain(self) -> list[int]:
        """Slots in use, oldest first."""
        n = len(self.steps)
        return [(self.slot + 1 + k) % n for k in range(n)]


@dataclass(frozen=True)
class Broyden:
    """Good Broyden method, one chain of updates per problem.

    Args:
        window: number of steps after which the chain is restarted.

    Raises:
        ValueError: for a window below 1.
    """

    window: int = 20

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; it must be at least 1 (typically 10 to 30)")

    def init(self, z0: Tensor, segments: Segments | None) -> BroydenState:
        n = 1 if segments is None else segments.n
        return BroydenState(
            segments=segments,
            steps=z0.new_zeros(self.window, *z0.shape),
            squares=torch.ones(n, self.window, dtype=torch.float64, device=z0.device),
            valid=torch.zeros(n, self.window, dtype=torch.bool, device=z0.device),
            damping=torch.ones(n, dtype=torch.float64, device=z0.device),
            capped=torch.zeros((), dtype=torch.int64, device=z0.device),
        )

    def resume(self, _state: BroydenState, z0: Tensor, segments: Segments | None) -> BroydenState:
        return self.init(z0, segments)  # the product form cannot reuse steps of another problem

    def restart(self, state: BroydenState, problems: Tensor, damping: Tensor) -> BroydenState:
        state.valid[problems] = False
        state.damping = damping
        for step in state.steps:
            step.copy_(select(problems, torch.zeros_like(step), step, state.segments))
        return state

    def step(self, state: BroydenState, point: Point, active: Tensor) -> tuple[Tensor, BroydenState]:
        segments, order = state.segments, state.chain()
        plain = per_row(state.damping, point.r, segments) * point.r
        step, newest = plain, order[-1]
        for older, newer in pairwise(order):
            share = dots(state.steps[older], step, segments) / state.squares[:, older]
            share = torch.where(state.valid[:, older] & state.valid[:, newer], share, 0.0)
            step = torch.addcmul(step, per_row(share, step, segments), state.steps[newer])
        share = dots(state.steps[newest], step, segments) / state.squares[:, newest]
        denominator = torch.where(state.valid[:, newest], 1.0 - share, 1.0)
        sound = denominator.abs() > SMALLEST_DENOMINATOR
        step = step * per_row(torch.where(sound, denominator, 1.0).reciprocal(), step, segments)
        state.capped += (~sound & active).sum()
        fresh = state.valid.all(1) | ~sound
        step = select(fresh, plain, step, segments)
        self._store(state, step, fresh)
        return point.z + step, state

    def _store(self, state: BroydenState, step: Tensor, fresh: Tensor) -> None:
        state.slot = slot = (state.slot + 1) % self.window
        state.valid &= ~fresh[:, None]
        state.steps[slot] = step
        square = dots(step, step, state.segments)
        state.valid[:, slot] = square > 0
        state.squares[:, slot] = torch.where(square > 0, square, 1.0)

    def counts(self, state: BroydenState) -> dict[str, int]:
        return {"capped": int(state.capped)}
