"""Linear fixed points x = A x + b: restarted GMRES, also as fallback of an accelerated iteration.

    x_k = argmin |b - (I - A) x|    over  x_0 + span{r_0, (I - A) r_0, ..., (I - A)^(k-1) r_0}

Each problem has its own Krylov space; applications of A are shared. The Arnoldi process uses two passes of classical
Gram-Schmidt; the small least-squares problem is solved by Givens rotations in float64.

Saad and Schultz, SIAM J. Sci. Stat. Comput. 7, 856 (1986).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import (
    Floats,
    Map,
    Point,
    Record,
    Safeguards,
    Segments,
    Solution,
    Solver,
    check_problem,
    dots,
    per_row,
    select,
    solve,
)


class _Rotated:
    """min |beta e_1 - H y| of every problem, column by column: R = Q H by Givens rotations, rhs = Q beta e_1."""

    def __init__(self, beta: Floats, window: int) -> None:
        self.r = np.zeros((len(beta), window, window))
        self.rhs = np.zeros((len(beta), window + 1))
        self.rhs[:, 0] = beta
        self.rotations: list[tuple[Floats, Floats]] = []

    def add(self, column: Floats) -> Floats:
        """Add a column [n, k + 2] of H; returns |beta e_1 - H y| of each problem."""
        k = len(self.rotations)
        for i, (c, s) in enumerate(self.rotations):
            upper, lower = column[:, i].copy(), column[:, i + 1].copy()
            column[:, i], column[:, i + 1] = c * upper + s * lower, c * lower - s * upper
        length = np.hypot(column[:, k], column[:, k + 1])
        safe = np.where(length > 0, length, 1.0)
        c, s = np.where(length > 0, column[:, k] / safe, 1.0), column[:, k + 1] / safe
        self.rotations.append((c, s))
        column[:, k] = length
        self.r[:, : k + 1, k] = column[:, : k + 1]
        self.rhs[:, k + 1] = -s * self.rhs[:, k]
        self.rhs[:, k] *= c
        return np.abs(self.rhs[:, k + 1])

    def solution(self) -> Floats:
        """Solution y [n, k]; zero along directions missing from the Krylov space of a problem."""
        k = len(self.rotations)
        y = np.zeros((len(self.rhs), k))
        for i in reversed(range(k)):
            pivot = self.r[:, i, i]
            value = self.rhs[:, i] - (self.r[:, i, i + 1 : k] * y[:, i + 1 :]).sum(1)
            y[:, i] = np.where(pivot > 0, value / np.where(pivot > 0, pivot, 1.0), 0.0)
        return y


def _orthogonal(w: Tensor, basis: Tensor, segments: Segments | None) -> tuple[Tensor, Floats]:
    """Normalized part of w orthogonal to the basis, and the column [n, k + 2] of the Hessenberg matrix."""
    before = dots(w, w, segments).sqrt()
    column = torch.zeros(len(before), len(basis) + 1, dtype=torch.float64, device=w.device)
    for _ in range(2):
        parts = torch.stack([dots(v, w, segments) for v in basis], 1)
        for v, part in zip(basis, parts.T, strict=True):
            w = torch.addcmul(w, per_row(part, w, segments), v, value=-1)
        column[:, :-1] += parts
    length = dots(w, w, segments).sqrt()
    length = torch.where(length > 10 * torch.finfo(w.dtype).eps * before, length, 0.0)  # only rounding is left
    column[:, -1] = length
    return w * per_row(torch.where(length > 0, length, torch.inf).reciprocal(), w, segments), column.cpu().numpy()


@torch.no_grad()
def gmres(
    matvec: Map,
    b: Tensor,
    x0: Tensor | None = None,
    tol: float = 1e-6,
    segments: Segments | None = None,
    *,
    window: int = 30,
    max_steps: int = 300,
) -> Solution:
    """Solve x = A x + b to |A x + b - x| <= tol |A x + b| for every problem.

    Args:
        matvec: x -> A x, linear; [n_rows, ...] to the same shape. ``A`` need not be a contraction.
        b: right-hand side, float32 or float64.
        x0: start; None for ``b``.
        tol: relative residual, Frobenius norms over the rows of a problem.
        segments: the problem of each row; None for one problem.
        window: size of the Krylov space at which the method restarts.
        max_steps: largest number of applications of ``A``.

    Returns:
        The `Solution`; its value is A x + b of the last evaluation with the reported residual.

    Raises:
        ValueError: for invalid arguments.
    """
    x = b if x0 is None else x0
    check_problem(x, tol, max_steps, segments)
    if window < 1 or x.shape != b.shape:
        raise ValueError(
            f"window is {window}, x0 {tuple(x.shape)}, b {tuple(b.shape)}; window must be at "
            "least 1, and x0 must have the shape of b"
        )
    record = Record(1 if segments is None else segments.n, tol, Safeguards(), segments)
    evaluations = 0
    while True:
        point = Point.of(x, matvec(x) + b, segments)
        evaluations += 1
        record.read(point, evaluations)
        progress = record.active & (record.best_at == evaluations)
        if evaluations >= max_steps - 1 or not progress.any():
            break
        x, used = _cycle(matvec, point, tol, segments, min(window, max_steps - evaluations - 1))
        evaluations += used
    return record.solution(evaluations, record.counters, None)


def _cycle(matvec: Map, point: Point, tol: float, segments: Segments | None, window: int) -> tuple[Tensor, int]:
    """One GMRES cycle, until every problem is expected to be below ``tol``; the new x and the applications of A."""
    beta, target = point.squares.sqrt().cpu().numpy()
    inverse = torch.where(point.squares[0] > 0, point.squares[0].sqrt(), torch.inf).reciprocal()
    basis = point.r.new_zeros(window + 1, *point.r.shape)
    basis[0] = point.r * per_row(inverse, point.r, segments)
    small = _Rotated(beta, window)
    for k in range(window):
        basis[k + 1], column = _orthogonal(basis[k] - matvec(basis[k]), basis[: k + 1], segments)
        if not (small.add(column) > tol * target).any():
            break
    x = point.z
    for v, y in zip(basis, torch.from_numpy(small.solution()).to(x.device).T, strict=False):
        x = torch.addcmul(x, per_row(y, x, segments), v)
    return x, k + 1


def solve_linear(
    f: Map,
    x0: Tensor,
    *,
    solver: Solver,
    tol: float,
    max_steps: int,
    segments: Segments | None = None,
    state: Any = None,
    check_every: int = 1,
) -> Solution:
    """Solve x = f(x) for an affine f(x) = A x + b by `solve`, and by `gmres` from its best point if that fails.

    Takes the arguments of `solve`; ``max_steps`` bounds each of the two. ``counters.fallbacks`` counts the problems
    solved by GMRES, whose evaluations are included; the state is that of ``solver``.
    """
    first = solve(
        f, x0, solver=solver, tol=tol, max_steps=max_steps, segments=segments, state=state, check_every=check_every
    )
    if bool(first.converged.all()):
        return first
    start = torch.where(first.value.isfinite(), first.value, 0.0)
    with torch.no_grad():
        b = f(torch.zeros_like(start))
    second = gmres(lambda x: f(x) - b, b, start, tol, segments, max_steps=max_steps)
    return _merged(first, second, segments)


def _merged(first: Solution, second: Solution, segments: Segments | None) -> Solution:
    """For each problem the first solution if it has converged, otherwise the better of both."""
    missed = ~first.converged
    taken = missed & (second.residual < first.residual)
    return Solution(
        value=select(taken.to(first.value.device), second.value, first.value, segments),
        residual=torch.where(taken, second.residual, first.residual),
        steps=first.steps + torch.where(missed, second.steps + 1, 0),
        converged=first.converged | (taken & second.converged),
        evaluations=first.evaluations + 1 + second.evaluations,
        counters=replace(first.counters, fallbacks=int(missed.sum())),
        state=first.state,
    )
