"""Fixed-point loop of all solvers: residuals, convergence, freezing, safeguards and statistics.

    z* = f(z*),    residual(z) = |f(z) - z| / (|f(z)| + tiny)

A solver proposes the next point (`init`, `resume`, `restart`, `step`); its history is in a separate state. Rows of
``z`` may belong to many independent problems: norms are then taken per problem, and every problem has its own window,
step count, safeguards and convergence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Segments:
    """Assignment of rows to independent problems.

    Args:
        index: int64 [n_rows], sorted, values in ``range(n)``.
        n: number of problems.
    """

    index: Tensor
    n: int

    @cached_property
    def lengths(self) -> Tensor:
        """Number of rows of each problem, int64 [n]."""
        return torch.bincount(self.index, minlength=self.n)

    def spread(self, values: Tensor) -> Tensor:
        """[n, ...] -> [n_rows, ...]: every row gets its problem's value."""
        return values.index_select(0, self.index)

    def total(self, rows: Tensor) -> Tensor:
        """[n_rows, k] -> float64 [n, k]: sum over the rows of each problem, in deterministic order."""
        values, lengths = rows.double(), self.lengths
        if not values.is_cuda:
            return torch.segment_reduce(values.contiguous(), "sum", lengths=lengths, unsafe=True, initial=0)
        return self._total_flat(values, lengths)

    def _total_flat(self, values: Tensor, lengths: Tensor) -> Tensor:
        """`total` as a flat segmented sum, for which CUDA uses a block of threads per sum instead of one."""
        k = values.shape[1]
        flat = torch.segment_reduce(values.T.reshape(-1), "sum", lengths=lengths.repeat(k), unsafe=True, initial=0)
        return flat.view(k, self.n).T


@dataclass(frozen=True)
class Point:
    """One evaluation of the map: ``z``, ``f = f(z)``, ``r = f - z``, ``squares = (|r|^2, |f|^2)`` float64 [2, n]."""

    z: Tensor
    f: Tensor
    r: Tensor
    squares: Tensor

    @staticmethod
    def of(z: Tensor, f: Tensor, segments: Segments | None) -> Point:
        r = f - z
        if segments is None:
            flat_r, flat_f = r.reshape(-1), f.reshape(-1)
            squares = torch.stack((flat_r.dot(flat_r), flat_f.dot(flat_f))).double()[:, None]
        else:
            norms = [torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1) for x in (r, f)]
            squares = segments.total(torch.stack(norms, 1).double().square()).T
        return Point(z, f, r, squares)


def dots(x: Tensor, y: Tensor, segments: Segments | None) -> Tensor:
    """<x, y> of each problem, float64 [n]; x and y of one shape [n_rows, ...]. No matrix product, so never in TF32."""
    if segments is None:
        return x.reshape(-1).dot(y.reshape(-1)).double()[None]
    return segments.total(torch.linalg.vecdot(x.reshape(len(x), -1), y.reshape(len(y), -1))[:, None])[:, 0]


def per_row(values: Tensor, like: Tensor, segments: Segments | None) -> Tensor:
    """[n] -> a tensor of the dtype of ``like`` that multiplies its rows."""
    values = values.to(like.dtype)
    return values if segments is None else segments.spread(values).view(-1, *[1] * (like.ndim - 1))


def select(mask: Tensor, one: Tensor, other: Tensor, segments: Segments | None) -> Tensor:
    """Rows of ``one`` for the problems in ``mask`` (bool [n]), of ``other`` elsewhere."""
    if segments is not None:
        mask = segments.spread(mask).view(-1, *[1] * (one.ndim - 1))
    return torch.where(mask, one, other)


class Solver(Protocol):
    """A fixed-point method as a value. ``problems`` and ``active`` are bool [n], ``damping`` is float [n]."""

    def init(self, z0: Tensor, segments: Segments | None, /) -> Any:
        """State for a new problem."""

    def resume(self, state: Any, z0: Tensor, segments: Segments | None, /) -> Any:
        """State for a similar problem of the same shape, which reuses the history."""

    def restart(self, state: Any, problems: Tensor, damping: Tensor, /) -> Any:
        """Clear the history of some problems and shorten their steps by ``damping``."""

    def step(self, state: Any, point: Point, active: Tensor, /) -> tuple[Tensor, Any]:
        """The next point to evaluate."""

    def counts(self, state: Any, /) -> dict[str, int]:
        """Counts of the solver's own safeguards, by names of `Counters`."""


@dataclass(frozen=True)
class Safeguards:
    """Conditions for returning to the best point and restarting the solver there.

    Args:
        growth: factor by which the residual norm may exceed that of the best point.
        patience: number of evaluations without a better residual norm.
        min_damping: each return to the best point after the first halves the step, down to this factor.
    """

    growth: float = 5.0
    patience: int = 20
    min_damping: float = 1 / 16

    def __post_init__(self) -> None:
        if not (self.growth > 1 and self.patience >= 1 and 0 < self.min_damping <= 1):
            raise ValueError(f"{self}: growth must be > 1, patience >= 1 and min_damping in (0, 1]")


@dataclass
class Counters:
    """Number of times each safeguard acted, summed over problems."""

    grown: int = 0
    nonfinite: int = 0
    stagnated: int = 0
    dropped: int = 0
    capped: int = 0
    fallbacks: int = 0


@dataclass(frozen=True)
class Solution:
    """Result of `solve`.

    Attributes:
        value: f(z) of the evaluation with the reported residual, shape of ``z0``; never an unevaluated extrapolation.
            After Picard iterations without the solver (`engine.equilibrium.equilibrium_from_picard`) it is z itself.
        residual: relative residual of each problem, float64 [n]; inf where f was never finite.
        steps: evaluations until each problem stopped, int64 [n].
        converged: bool [n].
        evaluations: applications of f to the whole batch.
        counters: counts of the safeguards.
        state: history of the solver, for a similar problem.

    ``residual``, ``steps`` and ``converged`` lie on the CPU.
    """

    value: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor
    evaluations: int
    counters: Counters
    state: Any = field(default=None, repr=False)


def _relative(squares: Floats) -> Floats:
    """|r| / (|f| + tiny); nan where both are infinite."""
    with np.errstate(invalid="ignore"):
        relative: Floats = np.sqrt(squares[0]) / (np.sqrt(squares[1]) + TINY)
    return relative


class Record:
    """Residuals, best points and convergence of all problems of one solve, on the host."""

    def __init__(self, n: int, tol: float, safeguards: Safeguards, segments: Segments | None) -> None:
        self.tol, self.safeguards, self.segments = tol, safeguards, segments
        self.active, self.all_active, self.nobody = np.ones(n, bool), True, np.zeros(n, bool)
        self.converged = np.zeros(n, bool)
        self.best_squares = np.full((2, n), np.inf)
        self.best_at = np.zeros(n, np.int64)
        self.steps = np.zeros(n, np.int64)
        self.rollbacks = np.zeros(n, np.int64)
        self.counters = Counters()
        self.best: Point | None = None

    def read(self, point: Point, evaluation: int) -> Mask:
        """Record one evaluation; returns the problems that have to return to their best point."""
        squares = point.squares.cpu().numpy()
        all_improved = self.all_active and (squares[0] < self.best_squares[0]).all()  # false for nan and inf
        if all_improved and (squares[0] > self.tol**2 * squares[1]).all():
            self.best, self.best_squares = point, squares
            self.best_at.fill(evaluation)
            self.steps.fill(evaluation)
            return self.nobody
        return self._judge(point, squares, evaluation)

    def _judge(self, point: Point, squares: Floats, evaluation: int) -> Mask:
        finite = np.isfinite(squares).all(0)
        square, best = np.where(finite, squares[0], np.inf), self.best_squares[0]
        done = self.active & finite & (_relative(squares) <= self.tol)
        grown = self.active & finite & (square > self.safeguards.growth**2 * best)
        better = self.active & finite & ((square < best) | done)
        self._keep(point, better)
        self.best_squares = np.where(better, squares, self.best_squares)
        self.best_at[better] = evaluation
        self.steps[self.active] = evaluation
        self.converged |= done
        bad = self.active & ~finite
        stale = self.active & ~done & ~bad & ~grown & (evaluation - self.best_at >= self.safeguards.patience)
        self.counters.nonfinite += int(bad.sum())
        self.counters.grown += int(grown.sum())
        self.counters.stagnated += int(stale.sum())
        self.active &= ~done & ~(bad & np.isinf(best))  # f is not finite at the start: there is no best point
        self.all_active = bool(self.active.all())
        back: Mask = self.active & (bad | grown | stale)
        self.best_at[back] = evaluation
        self.rollbacks += back
        return back

    def _keep(self, point: Point, better: Mask) -> None:
        if self.best is None or better.all():
            self.best = point
        elif better.any():
            self.best = self.mixed(better, point, self.best)

    def mixed(self, mask: Mask, one: Point, other: Point) -> Point:
        """Rows of ``one`` for the problems in ``mask``, of ``other`` elsewhere."""
        if self.segments is None:
            return one if mask[0] else other
        on = torch.from_numpy(mask).to(one.z.device)
        pairs = ((one.z, other.z), (one.f, other.f), (one.r, other.r))
        z, f, r = (select(on, a, b, self.segments) for a, b in pairs)
        return Point(z, f, r, torch.where(on, one.squares, other.squares))

    def solution(self, evaluations: int, counters: Counters, state: Any) -> Solution:
        assert self.best is not None
        relative = np.where(np.isinf(self.best_squares[0]), np.inf, _relative(self.best_squares))
        residual, steps, converged = (torch.from_numpy(x) for x in (relative, self.steps, self.converged))
        return Solution(self.best.f, residual, steps, converged, evaluations, counters, state)

    def damping(self) -> Tensor:
        """Damping factor of the step for each problem, float64 [n]."""
        return torch.from_numpy(np.maximum(0.5 ** np.maximum(self.rollbacks - 1.0, 0.0), self.safeguards.min_damping))


def check_problem(z0: Tensor, tol: float, max_steps: int, segments: Segments | None, check_every: int = 1) -> None:
    """Raise ValueError for invalid arguments of a solve."""
    if z0.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"z0 is {z0.dtype}; the solvers work in torch.float32 or torch.float64: convert z0")
    if not tol > 0:
        raise ValueError(f"tol is {tol}; it must be > 0 (a relative residual, for instance 1e-3)")
    if max_steps < 1 or check_every < 1:
        raise ValueError(f"max_steps is {max_steps} and check_every {check_every}; both must be at least 1")
    if segments is not None and (z0.ndim < 1 or segments.index.shape != z0.shape[:1]):
        raise ValueError(
            f"segments.index has shape {tuple(segments.index.shape)}; z0 {tuple(z0.shape)} needs one entry a row"
        )


@torch.no_grad()
def solve(
    f: Map,
    z0: Tensor,
    *,
    solver: Solver,
    tol: float,
    max_steps: int,
    segments: Segments | None = None,
    state: Any = None,
    check_every: int = 1,
    safeguards: Safeguards = Safeguards(),
) -> Solution:
    """Solve z* = f(z*) to |f(z) - z| <= tol |f(z)| for every problem.

    Args:
        f: the map; takes and returns tensors of the shape of ``z0``, a new tensor at each call. Rows of different
            problems must not depend on each other.
        z0: start, [n_rows, ...], float32 or float64.
        solver: `Anderson`, `Picard`, `Broyden`, ...
        tol: relative residual, Frobenius norms over the rows of a problem.
        max_steps: largest number of evaluations of ``f``.
        segments: the problem of each row; None for one problem.
        state: ``Solution.state`` of an earlier, similar problem of the same shape. It is modified in place.
        check_every: number of evaluations between checks of residuals and safeguards; there is no synchronization with
            a GPU in between.
        safeguards: conditions for returning to the best point.

    Returns:
        The `Solution`; a problem that did not converge has its best evaluation, and ``converged`` is False.

    Raises:
        ValueError: for an invalid dtype, tolerance, limit or segments.
    """
    check_problem(z0, tol, max_steps, segments, check_every)
    z = z0.detach().contiguous()
    state = solver.init(z, segments) if state is None else solver.resume(state, z, segments)
    n = 1 if segments is None else segments.n
    record = Record(n, tol, safeguards, segments)
    active = torch.ones(n, dtype=torch.bool, device=z.device)
    n_active = n
    for evaluation in range(1, max_steps + 1):
        point = Point.of(z, f(z), segments)
        if (evaluation - 1) % check_every == 0 or evaluation == max_steps:
            back = record.read(point, evaluation)
            if evaluation == max_steps or not record.active.any():
                break
            if not record.all_active and (left := int(record.active.sum())) != n_active:
                n_active, active = left, torch.from_numpy(record.active).to(z.device)
            if back is not record.nobody and back.any() and record.best is not None:
                problems, damping = torch.from_numpy(back).to(z.device), record.damping().to(z.device)
                point, state = record.mixed(back, record.best, point), solver.restart(state, problems, damping)
        z, state = solver.step(state, point, active)
        if n_active < n and record.best is not None:
            z = select(active, z, record.best.f, segments)
    return record.solution(evaluation, replace(record.counters, **solver.counts(state)), state)
