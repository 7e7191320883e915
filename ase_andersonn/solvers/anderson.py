"""Anderson acceleration (Pulay mixing), type II, in difference form.

    gamma = argmin |r - dR gamma|,    z_next = f - dF gamma - (1 - mixing) (r - dR gamma)

with r = f(z) - z and the last ``window`` differences of f and r as columns of dF and dR. The normal equations are
solved with the Gram matrix in float64, scaled to unit diagonal, by a Cholesky factorisation that takes the newest
column first, so that an ill-conditioned column and all older ones drop out by cutting the factor short.

Anderson, J. ACM 12, 547 (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from operator import mul
from typing import Any

import torch
from torch import Tensor

from .base import Point, Segments, per_row, select


@dataclass(frozen=True)
class _Limits:
    """Least-squares limits: relative ridge, smallest pivot, column noise relative to |f|, largest weight."""

    ridge: float
    pivot: float
    noise: float
    weight: float


class _HostWindow:
    """Gram matrix of one problem, in Python floats: at this size ten times faster than tensors."""

    def __init__(self, window: int, limits: _Limits) -> None:
        self.limits = limits
        self.gram = [[0.0] * window for _ in range(window)]
        self.rhs = [0.0] * window
        self.slots: list[int] = []  # newest first
        self.dropped = self.capped = 0

    def clear(self, _problems: Tensor) -> None:
        self.slots = []

    def unlink(self) -> None:
        self.dropped = self.capped = 0

    def push(self, slot: int, dots: list[float], square: float) -> None:
        """Add a column with dots = dR r for the new r; its Gram row is the change of dR r, so dR is read once."""
        if slot in self.slots:
            self.slots.remove(slot)
        for j in self.slots:
            self.gram[slot][j] = self.gram[j][slot] = dots[j] - self.rhs[j]
        self.gram[slot][slot] = square
        self.slots.insert(0, slot)

    def weights(self, dots: list[float], f_square: float) -> list[float] | None:
        """gamma by slot; None for a Picard step."""
        self.rhs[: len(dots)] = dots
        limits, gram, before = self.limits, self.gram, len(self.slots)
        floor = limits.noise**2 * f_square
        slots = [s for s in self.slots if gram[s][s] > floor]
        factor: list[list[float]] = []
        y: list[float] = []
        for s in slots:  # ridge and pivot relative to the diagonal: the same as scaling it to one
            products = gram[s]
            row: list[float] = []
            for t, done in zip(slots, factor, strict=False):
                row.append((products[t] - sum(map(mul, row, done))) / done[-1])
            square = products[s]
            pivot = square * (1.0 + limits.ridge) - sum(map(mul, row, row))
            if not pivot > limits.pivot * square:
                break
            root = math.sqrt(pivot)
            y.append((dots[s] - sum(map(mul, row, y))) / root)
            row.append(root)
            factor.append(row)
        self.slots = slots = slots[: len(factor)]
        self.dropped += before - len(factor)
        gamma = [0.0] * len(dots)
        for i in range(len(factor) - 1, -1, -1):
            row = factor[i]
            gamma[slots[i]] = value = y[i] / row[i]
            for j in range(i):
                y[j] -= row[j] * value
        if not sum(map(abs, gamma)) <= limits.weight:
            self.capped += 1
            return None
        return gamma if self.slots else None


class _DeviceWindow:
    """Gram matrices of many problems, float64 [n, window, window], newest first; no synchronization."""

    def __init__(self, n: int, window: int, limits: _Limits, device: torch.device) -> None:
        self.limits = limits
        self.gram = torch.zeros(n, window, window, dtype=torch.float64, device=device)
        self.rhs = torch.zeros(n, window, dtype=torch.float64, device=device)
        self.valid = torch.zeros(n, window, dtype=torch.bool, device=device)
        self.linked = torch.zeros(n, dtype=torch.bool, device=device)  # whether there is a last point
        self.age = torch.arange(window, device=device)
        self.turned = (
            self.age[:, None] - self.age
        ) % window  # [newest slot, age] -> slot, and [newest slot, slot] -> age
        self.identity = torch.eye(window, dtype=torch.float64, device=device)
        self.newest = 0
        self.dropped = torch.zeros(n, window, dtype=torch.int64, device=device)
        self.capped = torch.zeros(n, dtype=torch.int64, device=device)

    def clear(self, problems: Tensor) -> None:
        keep = ~problems
        self.gram = torch.where(keep[:, None, None], self.gram, 0.0)  # products with nan would stay nan
        self.rhs = torch.where(keep[:, None], self.rhs, 0.0)
        self.valid = self.valid & keep[:, None]
        self.linked = self.linked & keep

    def unlink(self) -> None:
        self.linked = torch.zeros_like(self.linked)
        self.dropped.zero_()
        self.capped.zero_()

    def push(self, slot: int, dots: Tensor, squares: Tensor) -> None:
        """Add a column, as in `_HostWindow`; the others age by one."""
        self.newest = slot
        change = dots.index_select(1, self.turned[slot])[:, 1:] - self.rhs[:, :-1]
        row = torch.cat((squares[:, None], change), 1)
        rest = torch.cat((change[:, :, None], self.gram[:, :-1, :-1]), 2)
        self.gram = torch.cat((row[:, None], rest), 1)
        self.valid = torch.cat((self.linked[:, None], self.valid[:, :-1]), 1)

    def weights(self, dots: Tensor, f_square: Tensor) -> Tensor:
        """gamma [n, window] by slot; zero for Picard steps."""
        limits = self.limits
        self.rhs = dots = dots.index_select(1, self.turned[self.newest])
        square = self.gram.diagonal(dim1=1, dim2=2)
        keep = self.valid & (square > limits.noise**2 * f_square[:, None])
        scale = torch.where(keep, square, torch.inf).rsqrt()
        gram = self.gram * scale[:, :, None] * scale[:, None, :]
        gram.diagonal(dim1=1, dim2=2).fill_(1.0 + limits.ridge)
        factor, failed = torch.linalg.cholesky_ex(gram)
        good = factor.diagonal(dim1=1, dim2=2) > math.sqrt(limits.pivot)
        good &= self.age < torch.where(failed > 0, failed - 1, len(self.age))[:, None]
        keep &= good.cumprod(1).bool()
        # the leading block of the factor is the factor of the leading block
        factor = torch.where(keep[:, :, None] & keep[:, None, :], factor, self.identity)
        gamma = torch.cholesky_solve((dots * scale * keep)[:, :, None], factor)[:, :, 0] * scale
        fine = gamma.abs().sum(1) <= limits.weight
        self.dropped += self.valid ^ keep
        self.capped += ~fine
        self.valid = keep
        return torch.where(fine[:, None], gamma, 0.0).index_select(1, self.turned[self.newest])


@dataclass
class AndersonState:
    """Ring buffers of differences, the last point and the Gram matrices; mutated in place by `Anderson.step`."""

    segments: Segments | None
    shape: torch.Size
    d_f: Tensor
    d_r: Tensor
    window: _HostWindow | _DeviceWindow
    mixing: Tensor | float
    last: tuple[Tensor, Tensor] | None = None  # f and r
    slot: int = -1
    filled: int = 0

    def __post_init__(self) -> None:
        self.columns = tuple(zip(self.d_f.unbind(), self.d_r.unbind(), strict=True))
        self.head = self._head()

    def _head(self) -> tuple[Tensor, Tensor, Tensor]:
        """Views of the filled columns and of their weights; cached, since creating views costs microseconds."""
        return self.d_f[: self.filled], self.d_r[: self.filled], self.d_f.new_zeros(self.filled)

    def __getstate__(self) -> dict[str, Any]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # a pickled view would be a copy

    def advance(self) -> None:
        """Advance to the next slot of the ring buffer."""
        self.slot = (self.slot + 1) % len(self.columns)
        if self.slot == self.filled:
            self.filled += 1
            self.head = self._head()

    @property
    def full_step(self) -> bool:
        return isinstance(self.mixing, float) and self.mixing == 1.0

    def damped_residual(self, rest: Tensor) -> Tensor:
        """(1 - mixing) times the residual after the least-squares fit."""
        mixing = self.mixing
        return (1.0 - (per_row(mixing, rest, self.segments) if isinstance(mixing, Tensor) else mixing)) * rest


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration, one window per problem.

    Args:
        window: number of differences kept.
        mixing: share of the residual that is added, in (0, 1]; 1 is suitable for contractions.
        ridge: Tikhonov term relative to the unit diagonal of the scaled Gram matrix.
        max_weight: largest absolute sum of the weights; a Picard step is taken above it.

    Raises:
        ValueError: for numbers outside these ranges.
    """

    window: int = 6
    mixing: float = 1.0
    ridge: float = 1e-9
    max_weight: float = 1e4

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; it must be at least 1 (typically 5 to 8)")
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}; it must lie in (0, 1]")
        if not (self.ridge >= 0 and self.max_weight > 0):
            raise ValueError(f"ridge is {self.ridge} and max_weight {self.max_weight}; they must be >= 0 and > 0")

    def init(self, z0: Tensor, segments: Segments | None) -> AndersonState:
        eps = torch.finfo(z0.dtype).eps
        limits = _Limits(ridge=self.ridge, pivot=30 * eps, noise=eps, weight=self.max_weight)
        flat = z0.reshape(-1) if segments is None else z0.reshape(len(z0), -1)
        d_f, d_r = flat.new_zeros(2, self.window, *flat.shape)
        window: _HostWindow | _DeviceWindow
        if segments is None and z0.device.type == "cpu":
            window = _HostWindow(self.window, limits)
        else:
            window = _DeviceWindow(1 if segments is None else segments.n, self.window, limits, z0.device)
        return AndersonState(segments, z0.shape, d_f, d_r, window, self.mixing)

    def resume(self, state: AndersonState, z0: Tensor, segments: Segments | None) -> AndersonState:
        """Keep the differences; the first new point does not form a difference with an earlier one."""
        n, n_now = (1 if s is None else s.n for s in (state.segments, segments))
        same = (state.shape, state.d_f.dtype, state.d_f.device, n) == (z0.shape, z0.dtype, z0.device, n_now)
        if not same or (state.segments is None) != (segments is None):
            raise ValueError(
                f"the state belongs to {n} problem(s) of shape {tuple(state.shape)} in {state.d_f.dtype} "
                f"on {state.d_f.device}, not {n_now} of {tuple(z0.shape)} in {z0.dtype} on {z0.device}: pass state=None"
            )
        state.window.unlink()
        state.segments, state.last, state.mixing = segments, None, self.mixing
        return state

    def restart(self, state: AndersonState, problems: Tensor, damping: Tensor) -> AndersonState:
        state.window.clear(problems)
        state.mixing = self.mixing * damping
        clean = torch.zeros((), dtype=state.d_f.dtype, device=state.d_f.device)  # 0 * nan would be nan
        for row in (*state.d_f, *state.d_r):
            row.copy_(select(problems, clean.expand_as(row), row, state.segments))
        if state.segments is None:
            state.last = None
        elif state.last is not None:
            f, r = (select(problems, clean.expand_as(x), x, state.segments) for x in state.last)
            state.last = (f, r)
        return state

    def step(self, state: AndersonState, point: Point, active: Tensor) -> tuple[Tensor, AndersonState]:
        flat = state.d_f.shape[1:]
        f, r = point.f.reshape(flat), point.r.reshape(flat)
        added = state.last is not None
        if state.last is not None:
            state.advance()
            d_f, d_r = state.columns[state.slot]
            torch.sub(f, state.last[0], out=d_f)
            torch.sub(r, state.last[1], out=d_r)
        state.last = (f, r)
        if state.filled == 0:
            z = f if state.full_step else f - state.damped_residual(r)
        elif isinstance(state.window, _HostWindow):
            z = _step_one(state, state.window, added, f, r, point.squares.tolist()[1][0])
        else:
            z = _step_many(state, state.window, added, f, r, point.squares[1])
        if isinstance(state.window, _DeviceWindow):
            state.window.linked = active
        return z.reshape(state.shape), state

    def counts(self, state: AndersonState) -> dict[str, int]:
        window = state.window
        if isinstance(window, _HostWindow):
            return {"dropped": window.dropped, "capped": window.capped}
        return {"dropped": int(window.dropped.sum()), "capped": int(window.capped.sum())}


def _step_one(state: AndersonState, window: _HostWindow, added: bool, f: Tensor, r: Tensor, f_square: float) -> Tensor:
    d_f, d_r, weights = state.head
    dots = torch.mv(d_r, r).tolist()
    if added:
        newest = state.columns[state.slot][1]
        window.push(state.slot, dots, float(newest.dot(newest)))
    gamma = window.weights(dots, f_square)
    if gamma is None:
        return f if state.full_step else f - state.damped_residual(r)
    weights.numpy()[:] = gamma  # a third of the time of torch.tensor(gamma)
    z = torch.addmv(f, d_f.T, weights, alpha=-1)
    return z if state.full_step else z - state.damped_residual(torch.addmv(r, d_r.T, weights, alpha=-1))


def _step_many(
    state: AndersonState, window: _DeviceWindow, added: bool, f: Tensor, r: Tensor, f_square: Tensor
) -> Tensor:
    products = _dots(state, r)
    if added:
        window.push(state.slot, products[:, :-1], products[:, -1])
    gamma = window.weights(products[:, :-1], f_square).to(f.dtype)
    if state.segments is None:
        d_f, d_r, _ = state.head
        weights = gamma[0, : state.filled]
        z = torch.addmv(f, d_f.T, weights, alpha=-1)
        return z if state.full_step else z - state.damped_residual(torch.addmv(r, d_r.T, weights, alpha=-1))
    weights = state.segments.spread(gamma).T[:, :, None]
    z, rest = f.clone(), None if state.full_step else r.clone()
    for k in range(state.filled):
        z.addcmul_(weights[k], state.d_f[k], value=-1)
        if rest is not None:
            rest.addcmul_(weights[k], state.d_r[k], value=-1)
    return z if rest is None else z - state.damped_residual(rest)


def _dots(state: AndersonState, r: Tensor) -> Tensor:
    """dR r for every slot, then |newest column|^2; float64 [n, window + 1]. No matrix product, so never in TF32."""
    newest = state.columns[state.slot][1]
    if state.segments is None:
        return torch.cat((torch.mv(state.d_r, r), newest.dot(newest)[None])).double()[None]
    rows = torch.cat((torch.linalg.vecdot(state.d_r, r), torch.linalg.vecdot(newest, newest)[None]))
    return state.segments.total(rows.T)
