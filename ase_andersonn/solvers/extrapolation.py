"""Initial guesses extrapolated from earlier, similar problems.

    u ~ sum_k a_k u_k,  sum_k a_k = 1   =>   z ~ sum_k a_k z_k

The input injection u(x) of a geometry is cheap; its least-squares fit by the injections of the last steps gives
coefficients for every stored solution (features and adjoint alike), as descriptor-fitted extrapolation does for density
matrices in Born-Oppenheimer molecular dynamics: Polack, Dusson, Stamm and Lipparini, J. Chem. Theory Comput. 17, 6965
(2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Entry:
    injection: Tensor
    solutions: tuple[Tensor, ...]

    def like(self, u: Tensor) -> bool:
        return (self.injection.shape, self.injection.dtype, self.injection.device) == (u.shape, u.dtype, u.device)


@dataclass(frozen=True)
class _History:
    """Entries, newest first; their steps s_k = u_k - u_(k+1), and the inner products of the steps, float64 [k, k]."""

    entries: tuple[_Entry, ...] = ()
    steps: tuple[Tensor, ...] = ()
    gram: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    def extended(self, entry: _Entry, length: int) -> _History:
        """History with one more entry, limited to ``length``; needs one new row of inner products."""
        if not self.entries:
            return _History((entry,), (), self.gram.to(entry.injection.device))
        steps = ((entry.injection - self.entries[0].injection).reshape(-1), *self.steps)[: length - 1]
        row = _products(steps, steps[0])[None] if steps else self.gram[:0]
        old = self.gram[: len(steps) - 1, : len(steps) - 1]
        gram = torch.cat((row, torch.cat((row[:, 1:].T, old), 1))) if steps else self.gram[:0, :0]
        return _History((entry, *self.entries)[:length], steps, gram)


def _products(steps: tuple[Tensor, ...], with_: Tensor) -> Tensor:
    """Inner products with every step, float64 [len(steps)]."""
    products = [step.dot(with_) for step in steps]
    return torch.stack(products).double() if products else with_.new_zeros(0, dtype=torch.float64)


def _combined(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """`sum_k w_k x_k`, of at least one tensor."""
    result = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        result.add_(tensor, alpha=weight)
    return result


class Predictor:
    """min_c |(u - u_new) - sum_k c_k (u_k - u_new)|^2 + (noise |u|)^2 |c|^2 over the kept steps; u_new is the newest.

    Args:
        history: number of steps kept, typically 4 to 8.
        noise: relative error of the stored solutions. Larger values damp its amplification by the coefficients.
        max_error: largest accepted error of the fit: that of the worst row (atom), relative to the root mean square of
            the rows of `u`.

    Raises:
        ValueError: for a history below 1, a negative noise or a negative error.
    """

    def __init__(self, history: int = 6, noise: float = 3e-4, max_error: float = math.inf) -> None:
        if history < 1:
            raise ValueError(f"history is {history}; it must be at least 1")
        for name, value in (("noise", noise), ("max_error", max_error)):
            if not value >= 0:
                raise ValueError(f"{name} is {value}; it must be >= 0")
        self.history, self.noise, self.max_error = history, noise, max_error
        self._kept = _History()

    def __len__(self) -> int:
        return len(self._kept.entries)

    @torch.no_grad()
    def guess(self, u: Tensor) -> tuple[Tensor, ...] | None:
        """Solutions extrapolated to the injection `u` [n_atoms, n_channels], each of its stored shape.

        None without a history of this shape, dtype and device, and if the error of the fit is above `max_error`.
        """
        entries = self._kept.entries
        if not entries or not entries[0].like(u):
            return None
        coefficients = self._coefficients(u)
        weights = [1 - sum(coefficients), *coefficients]
        if not self._fits(u, _combined(weights, [entry.injection for entry in entries])):
            return None
        return tuple(_combined(weights, stored) for stored in zip(*(e.solutions for e in entries), strict=True))

    def _fits(self, u: Tensor, fitted: Tensor) -> bool:
        """Whether the error of the worst row is at most `max_error`; False for nan."""
        if self.max_error == math.inf:
            return True
        left, size = ((v * v).sum(-1) for v in (fitted - u, u))
        return bool(left.max() <= self.max_error**2 * size.mean())

    def _coefficients(self, u: Tensor) -> list[float]:
        """c, newest first, one fewer than entries; u_k - u_new is minus the sum of the first k steps."""
        steps, gram = self._kept.steps, self._kept.gram
        target = (u - self._kept.entries[0].injection).reshape(-1)
        sums = -torch.ones_like(gram).tril()
        normal = sums @ gram @ sums.T
        ridge = self.noise**2 * u.reshape(-1).dot(u.reshape(-1)).double()
        ridge = ridge + 1e-14 * normal.diagonal().sum() + torch.finfo(torch.float64).tiny
        normal.diagonal().add_(ridge)
        coefficients: list[float] = torch.linalg.solve_ex(normal, sums @ _products(steps, target))[0].tolist()
        return coefficients

    @torch.no_grad()
    def update(self, u: Tensor, *solutions: Tensor) -> None:
        """Store the solutions found for ``u``. Another shape, dtype, device or number of solutions clears it."""
        entry, kept = _Entry(u.detach(), tuple(s.detach() for s in solutions)), self._kept
        fits = bool(kept.entries) and kept.entries[0].like(u) and len(kept.entries[0].solutions) == len(solutions)
        self._kept = (kept if fits else _History()).extended(entry, self.history)

    def reset(self) -> None:
        """Clear the history, after a jump in species, atom order, cell or neighbour structure."""
        self._kept = _History()
