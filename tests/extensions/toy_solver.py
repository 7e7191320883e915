"""A solver in a file of its own, as another package would have it: Picard iteration with momentum."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ase_andersonn.solvers import Segments
from ase_andersonn.solvers.base import Point, select


@dataclass(frozen=True)
class MomentumState:
    """The point before the present one, and the problems whose history is cleared, bool [n]."""

    segments: Segments | None
    before: Tensor
    cleared: Tensor | None = None


class HeavyBall:
    """`z_next = f(z) + 0.1 (z - z_before)`."""

    n_steps: ClassVar[int] = 0

    def init(self, z0: Tensor, segments: Segments | None, /) -> MomentumState:
        return MomentumState(segments, z0)

    def resume(self, _state: MomentumState, z0: Tensor, segments: Segments | None, /) -> MomentumState:
        return self.init(z0, segments)

    def restart(self, state: MomentumState, problems: Tensor, _damping: Tensor, /) -> MomentumState:
        return replace(state, cleared=problems)

    def step(self, state: MomentumState, point: Point, _active: Tensor, /) -> tuple[Tensor, MomentumState]:
        HeavyBall.n_steps += 1
        change = point.z - state.before
        if state.cleared is not None:
            change = select(state.cleared, torch.zeros_like(change), change, state.segments)
        return point.f + 0.1 * change, MomentumState(state.segments, point.z)

    def counts(self, _state: Any, /) -> dict[str, int]:
        return {}
