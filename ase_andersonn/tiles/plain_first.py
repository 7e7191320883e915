"""Plain iteration first, Anderson acceleration for what is left.

Trained cells hand on little from atom to atom, and a few plain steps then reach the tolerance: in as many evaluations
as with Anderson acceleration, without its work, which is half of that of a Monte Carlo move. Every problem takes the
same number of plain steps whatever the others do, so that a tile's solution does not depend on its batch.
"""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ase_andersonn.solvers.anderson import Anderson
from ase_andersonn.solvers.base import Point, Segments

ANDERSON = Anderson()


@dataclass(frozen=True)
class _State:
    segments: Segments | None
    left: int
    inner: Any = None


@dataclass(frozen=True)
class PlainFirst:
    """Some steps of `z → f(z)`, then those of Anderson acceleration.

    Args:
        steps: plain ones.
        then: the solver that goes on.
    """

    steps: int = 6
    then: Anderson = ANDERSON

    def init(self, _z0: Tensor, segments: Segments | None) -> _State:
        return _State(segments, self.steps)

    def resume(self, state: _State, z0: Tensor, segments: Segments | None) -> _State:
        if state.inner is None:
            return self.init(z0, segments)
        return replace(state, inner=self.then.resume(state.inner, z0, segments))

    def restart(self, state: _State, problems: Tensor, damping: Tensor) -> _State:
        if state.inner is None:
            return replace(state, left=0)
        return replace(state, inner=self.then.restart(state.inner, problems, damping))

    def step(self, state: _State, point: Point, active: Tensor) -> tuple[Tensor, _State]:
        if state.inner is None and state.left > 0:
            return point.f, replace(state, left=state.left - 1)
        inner = self.then.init(point.z, state.segments) if state.inner is None else state.inner
        z, inner = self.then.step(inner, point, active)
        return z, replace(state, inner=inner)

    def counts(self, state: _State) -> dict[str, int]:
        return {} if state.inner is None else self.then.counts(state.inner)
