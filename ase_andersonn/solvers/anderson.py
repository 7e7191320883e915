"""Anderson acceleration (Pulay mixing), type II, in difference form.

    gamma = argmin |r - dR gamma|,    z_next = f - dF gamma - (1 - mixing) (r - dR gamma)

with r = f(z) - z and the last ``window`` differences of f and r as columns of dF and dR. The normal equations are
solved with the Gram matrix in float64, scaled to unit diagonal, by a Cholesky factorisation that takes the newest
column first, so that an ill-conditioned column and all older ones drop out by cutting the factor short.

Anderson, J. ACM 12, 547 (1965); Walker and Ni, SIAM J. Numer. Anal. 49, 1715 (2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .base import Point, Segments


@dataclass(frozen=True)
class _Limits:
    """Of the least squares: relative ridge, smallest pivot, noise of a column relative to |f|, cap on the weights."""

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
        self.linked = False  # is there an earlier point to take a difference to?
        self.dropped = self.capped = 0

    def forget(self, _problems: Tensor) -> None:
        self.slots, self.linked = [], False

    def unlink(self) -> None:
        self.linked, self.dropped, self.capped = False, 0, 0

    def push(self, slot: int, dots: list[float], square: float) -> None:
        """dots = dR r for the new r; a new Gram row is the change of dR r, so no second pass over dR is needed."""
        if slot in self.slots:
            self.slots.remove(slot)
        for j in self.slots:
            self.gram[slot][j] = self.gram[j][slot] = dots[j] - self.rhs[j]
        self.gram[slot][slot] = square
        self.slots.insert(0, slot)

    def weights(self, dots: list[float], f_square: float) -> list[float] | None:
        """gamma by slot; None for a plain step."""
        self.rhs[: len(dots)] = dots
        limits, gram, before = self.limits, self.gram, len(self.slots)
        floor = limits.noise**2 * f_square
        slots = [s for s in self.slots if gram[s][s] > floor]
        scale = {s: 1.0 / math.sqrt(gram[s][s]) for s in slots}
        factor: list[list[float]] = []
        y: list[float] = []
        for s in slots:
            row: list[float] = []
            for t, done in zip(slots, factor, strict=False):
                inner = sum(a * b for a, b in zip(row, done, strict=False))
                row.append((gram[s][t] * scale[s] * scale[t] - inner) / done[-1])
            pivot = 1.0 + limits.ridge - sum(a * a for a in row)
            if not pivot > limits.pivot:
                break
            y.append((dots[s] * scale[s] - sum(a * b for a, b in zip(row, y, strict=True))) / math.sqrt(pivot))
            row.append(math.sqrt(pivot))
            factor.append(row)
        self.slots = slots[: len(factor)]
        self.dropped += before - len(factor)
        gamma = [0.0] * len(dots)
        for i in reversed(range(len(factor))):
            y[i] = (y[i] - sum(factor[k][i] * y[k] for k in range(i + 1, len(factor)))) / factor[i][i]
            gamma[self.slots[i]] = y[i] * scale[self.slots[i]]
        if not sum(map(abs, gamma)) <= limits.weight:
            self.capped += 1
            return None
        return gamma if self.slots else None


class _DeviceWindow:
    """Gram matrices of many problems, as float64 tensors [n, window, window]; nothing waits for the device."""

    def __init__(self, n: int, window: int, limits: _Limits, device: torch.device) -> None:
        self.limits = limits
        self.gram = torch.zeros(n, window, window, dtype=torch.float64, device=device)
        self.rhs = torch.zeros(n, window, dtype=torch.float64, device=device)
        self.valid = torch.zeros(n, window, dtype=torch.bool, device=device)
        self.linked = torch.zeros(n, dtype=torch.bool, device=device)
        self.identity = torch.eye(window, dtype=torch.float64, device=device)
        ring = torch.arange(window, device=device)
        self.newest_first = (ring[:, None] - ring) % window
        self.newest = 0
        self.dropped = torch.zeros((), dtype=torch.int64, device=device)
        self.capped = torch.zeros((), dtype=torch.int64, device=device)

    def forget(self, problems: Tensor) -> None:
        self.gram[problems], self.rhs[problems] = 0.0, 0.0
        self.valid[problems] = False
        self.linked[problems] = False

    def unlink(self) -> None:
        self.linked.zero_()
        self.dropped.zero_()
        self.capped.zero_()

    def push(self, slot: int, dots: Tensor, squares: Tensor) -> None:
        row = dots - self.rhs
        self.gram[:, slot], self.gram[:, :, slot] = row, row
        self.gram[:, slot, slot] = squares
        self.valid[:, slot] = self.linked
        self.newest = slot

    def weights(self, dots: Tensor, f_square: Tensor, active: Tensor) -> Tensor:
        """gamma [n, window] by slot; rows of zeros for plain steps."""
        limits, order = self.limits, self.newest_first[self.newest]
        self.rhs = dots
        valid = self.valid
        diagonal = self.gram.diagonal(dim1=1, dim2=2)
        keep = (valid & (diagonal > limits.noise**2 * f_square[:, None])).index_select(1, order)
        scale = torch.where(keep, diagonal.index_select(1, order), 1.0).rsqrt()
        gram = self.gram.index_select(1, order).index_select(2, order) * scale[:, :, None] * scale[:, None, :]
        factor, failed = torch.linalg.cholesky_ex(self._masked(gram, keep))
        good = factor.diagonal(dim1=1, dim2=2).square() > limits.pivot
        position = torch.arange(len(order), device=order.device)
        good &= (failed[:, None] == 0) | (position < failed[:, None] - 1)
        keep = keep & (good | ~keep).cumprod(1).bool()
        factor, failed = torch.linalg.cholesky_ex(self._masked(gram, keep))
        rhs = torch.where(keep, dots.index_select(1, order) * scale, 0.0)
        gamma = torch.cholesky_solve(rhs[:, :, None], factor)[:, :, 0] * scale
        fine = (gamma.abs().sum(1) <= limits.weight) & (failed == 0)
        back = order.argsort()
        self.valid = keep.index_select(1, back)
        self.dropped += ((valid & ~self.valid) & active[:, None]).sum()
        self.capped += (~fine & active).sum()
        return torch.where(fine[:, None] & keep, gamma, 0.0).index_select(1, back)

    def _masked(self, gram: Tensor, keep: Tensor) -> Tensor:
        pairs = keep[:, :, None] & keep[:, None, :]
        return torch.where(pairs, gram, 0.0).masked_fill(self.identity.bool(), 1.0 + self.limits.ridge)


@dataclass
class AndersonState:
    """Ring buffers of differences, the last point, and the Gram matrices; mutated in place by `Anderson.step`."""

    segments: Segments | None
    d_f: Tensor
    d_r: Tensor
    window: _HostWindow | _DeviceWindow
    mixing: Tensor | float
    last: Point | None = None
    slot: int = -1
    filled: int = 0
    shape: torch.Size = field(default_factory=torch.Size)


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration, one window per problem.

    Args:
        window: number of differences kept.
        mixing: share of the residual that is mixed in, in (0, 1]; 1 suits contractions.
        ridge: Tikhonov term relative to the unit diagonal of the scaled Gram matrix.
        max_weight: a plain step is taken where the weights' absolute sum exceeds this.

    Raises:
        ValueError: for numbers outside these ranges.
    """

    window: int = 6
    mixing: float = 1.0
    ridge: float = 1e-9
    max_weight: float = 1e4

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}; it must be at least 1 (5 to 8 is usual)")
        if not 0 < self.mixing <= 1:
            raise ValueError(f"mixing is {self.mixing}; it must lie in (0, 1]")
        if not (self.ridge >= 0 and self.max_weight > 0):
            raise ValueError(f"ridge is {self.ridge} and max_weight {self.max_weight}; they must be >= 0 and > 0")

    def init(self, z0: Tensor, segments: Segments | None) -> AndersonState:
        eps = torch.finfo(z0.dtype).eps
        limits = _Limits(ridge=self.ridge, pivot=30 * eps, noise=4 * eps, weight=self.max_weight)
        flat = z0.reshape(-1) if segments is None else z0.reshape(len(z0), -1)
        buffers = flat.new_zeros(2, self.window, *flat.shape)
        window: _HostWindow | _DeviceWindow
        if segments is None and z0.device.type == "cpu":
            window = _HostWindow(self.window, limits)
        else:
            window = _DeviceWindow(1 if segments is None else segments.n, self.window, limits, z0.device)
        return AndersonState(segments, buffers[0], buffers[1], window, self.mixing, shape=z0.shape)

    def resume(self, state: AndersonState, z0: Tensor, segments: Segments | None) -> AndersonState:
        """Keeps the differences; the first new point has no earlier point to differ from."""
        n, n_now = (1 if s is None else s.n for s in (state.segments, segments))
        if state.shape != z0.shape or state.d_f.dtype != z0.dtype or state.d_f.device != z0.device or n != n_now:
            raise ValueError(
                f"the state belongs to {n} problem(s) of shape {tuple(state.shape)} in {state.d_f.dtype} "
                f"on {state.d_f.device}, not {n_now} of {tuple(z0.shape)} in {z0.dtype} on {z0.device}: pass state=None"
            )
        state.window.unlink()
        state.segments, state.last, state.mixing = segments, None, self.mixing
        return state

    def restart(self, state: AndersonState, problems: Tensor, damping: Tensor) -> AndersonState:
        state.window.forget(problems)
        if state.segments is None:
            state.last, state.mixing = None, self.mixing * float(damping[0])
            state.d_f.zero_(), state.d_r.zero_()
            return state
        state.mixing = (self.mixing * damping).to(state.d_f.dtype)
        rows = state.segments.spread(problems)[:, None]
        state.d_f.masked_fill_(rows, 0.0), state.d_r.masked_fill_(rows, 0.0)  # 0 * nan would be nan
        if state.last is not None:
            last = state.last
            shape = [-1] + [1] * (last.f.ndim - 1)
            f, r = (x.masked_fill(rows.view(shape), 0.0) for x in (last.f, last.r))
            state.last = Point(last.z, f, r, last.squares)
        return state

    def step(self, state: AndersonState, point: Point, active: Tensor) -> tuple[Tensor, AndersonState]:
        flat = state.d_f.shape[1:]
        f, r, last = point.f.reshape(flat), point.r.reshape(flat), state.last
        slot = None
        if last is not None:
            slot = state.slot = (state.slot + 1) % self.window
            state.filled = max(state.filled, slot + 1)
            torch.sub(f, last.f.reshape(flat), out=state.d_f[slot])
            torch.sub(r, last.r.reshape(flat), out=state.d_r[slot])
        state.last = point
        if state.filled == 0:
            z = self._plain(state, f, r)
        elif isinstance(state.window, _HostWindow):
            z = self._step_one(state, state.window, slot, f, r, float(point.squares[1, 0]))
        else:
            z = self._step_many(state, state.window, slot, f, r, point.squares[1], active)
        if isinstance(state.window, _HostWindow):
            state.window.linked = True
        else:
            state.window.linked.fill_(True)
        return z.view(state.shape), state

    def _step_one(
        self, state: AndersonState, window: _HostWindow, slot: int | None, f: Tensor, r: Tensor, f_square: float
    ) -> Tensor:
        d_f, d_r = state.d_f[: state.filled], state.d_r[: state.filled]
        dots = torch.mv(d_r, r).tolist()
        if slot is not None:
            window.push(slot, dots, float(torch.dot(d_r[slot], d_r[slot])))
        gamma = window.weights(dots, f_square)
        if gamma is None:
            return self._plain(state, f, r)
        weights = torch.tensor(gamma, dtype=f.dtype)
        z = torch.addmv(f, d_f.T, weights, alpha=-1)
        if state.mixing != 1.0:
            z -= (1.0 - float(state.mixing)) * torch.addmv(r, d_r.T, weights, alpha=-1)
        return z

    def _step_many(
        self,
        state: AndersonState,
        window: _DeviceWindow,
        slot: int | None,
        f: Tensor,
        r: Tensor,
        f_square: Tensor,
        active: Tensor,
    ) -> Tensor:
        products = self._dots(state, r, slot)
        dots = products[:, : self.window]
        if slot is not None:
            window.push(slot, dots, products[:, self.window])
        gamma = window.weights(dots, f_square, active).to(f.dtype)
        z, rest = f.clone(), None if self._full(state) else r.clone()
        weights = gamma.T if state.segments is None else state.segments.spread(gamma).T[:, :, None]
        for k in range(state.filled):
            z.addcmul_(weights[k], state.d_f[k], value=-1)
            if rest is not None:
                rest.addcmul_(weights[k], state.d_r[k], value=-1)
        return z if rest is None else z - (1.0 - self._share(state)) * rest

    def _dots(self, state: AndersonState, r: Tensor, slot: int | None) -> Tensor:
        """dR r for every slot, then |dR[slot]|^2; float64 [n, window + 1]. No matrix product: TF32 may be on."""
        newest = state.d_r[slot or 0]
        if state.segments is None:
            dots = torch.mv(state.d_r, r)
            return torch.cat((dots, newest.dot(newest)[None])).double()[None]
        rows = torch.cat((torch.linalg.vecdot(state.d_r, r), torch.linalg.vecdot(newest, newest)[None]))
        return state.segments.total(rows.T)

    def _share(self, state: AndersonState) -> Tensor | float:
        if isinstance(state.mixing, float) or state.segments is None:
            return state.mixing
        return state.segments.spread(state.mixing)[:, None]

    def _plain(self, state: AndersonState, f: Tensor, r: Tensor) -> Tensor:
        return f if self._full(state) else f - (1.0 - self._share(state)) * r

    def _full(self, state: AndersonState) -> bool:
        return isinstance(state.mixing, float) and state.mixing == 1.0

    def counts(self, state: AndersonState) -> dict[str, int]:
        return {"dropped": int(state.window.dropped), "capped": int(state.window.capped)}
