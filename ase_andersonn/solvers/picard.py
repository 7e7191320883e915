"""Picard iteration: z_next = z + mixing (f(z) - z)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Point, Segments, per_row


@dataclass(frozen=True)
class PicardState:
    """Damping of each problem, float [n]; None until a safeguard has acted."""

    segments: Segments | None
    damping: Tensor | None = None


@dataclass(frozen=True)
class Picard:
    """Picard iteration z_next = z + mixing (f(z) - z).

    Args:
        mixing: step length in (0, 1]; 1 for the undamped iteration.

    Raises:
        ValueError: for a mixing outside (0, 1].
    """

    mixing: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}; it must lie in (0, 1]")

    def init(self, _z0: Tensor, segments: Segments | None) -> PicardState:
        return PicardState(segments)

    def resume(self, _state: PicardState, _z0: Tensor, segments: Segments | None) -> PicardState:
        return PicardState(segments)

    def restart(self, state: PicardState, _problems: Tensor, damping: Tensor) -> PicardState:
        return PicardState(state.segments, damping)

    def step(self, state: PicardState, point: Point, _active: Tensor) -> tuple[Tensor, PicardState]:
        if state.damping is None:
            return (point.f if self.mixing == 1.0 else point.z + self.mixing * point.r), state
        return point.z + per_row(self.mixing * state.damping, point.r, state.segments) * point.r, state

    def counts(self, _state: PicardState) -> dict[str, int]:
        return {}
