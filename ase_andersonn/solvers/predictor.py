"""Starting guesses from earlier, nearby problems.

    u ~ sum_k a_k u_k,  sum_k a_k = 1   =>   z ~ sum_k a_k z_k

The input injection u(x) of a geometry is cheap; its least-squares fit on the injections of the last steps gives
coefficients that serve every stored solution (features and adjoint alike), as descriptor-fitted extrapolation does for
density matrices in Born-Oppenheimer molecular dynamics: Polack, Dusson, Stamm and Lipparini, J. Chem. Theory
Comput. 17, 6965 (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Entry:
    injection: Tensor
    solutions: tuple[Tensor, ...]

    def like(self, u: Tensor) -> bool:
        return (self.injection.shape, self.injection.dtype, self.injection.device) == (u.shape, u.dtype, u.device)


class Predictor:
    """min_c |(u - u_new) - sum_k c_k (u_k - u_new)|^2 + (noise |u|)^2 |c|^2 over the kept steps; u_new is the newest.

    Args:
        history: number of steps kept; 4 to 8 is usual.
        noise: relative error of the stored solutions. Larger values damp its amplification by the coefficients.

    Raises:
        ValueError: for a history below 1 or a negative noise.
    """

    def __init__(self, history: int = 6, noise: float = 3e-4) -> None:
        if history < 1:
            raise ValueError(f"history is {history}; it must be at least 1")
        if not noise >= 0:
            raise ValueError(f"noise is {noise}; it must be >= 0")
        self.history, self.noise = history, noise
        self._entries: tuple[_Entry, ...] = ()
        self._before: tuple[_Entry, ...] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @torch.no_grad()
    def guess(self, u: Tensor) -> tuple[Tensor, ...] | None:
        """Solutions extrapolated to the injection ``u``; None without a history of this shape, dtype and device."""
        if not self._entries or not self._entries[-1].like(u):
            return None
        newest, older = self._entries[-1], self._entries[:-1]
        if not older:
            return newest.solutions
        coefficients = self._coefficients(u, newest, older).to(u.dtype)
        guesses = []
        for k, solution in enumerate(newest.solutions):
            guess = (1 - coefficients.sum()) * solution
            for c, entry in zip(coefficients, older, strict=True):
                guess.addcmul_(c, entry.solutions[k])
            guesses.append(guess)
        return tuple(guesses)

    def _coefficients(self, u: Tensor, newest: _Entry, older: tuple[_Entry, ...]) -> Tensor:
        """float64 [len(older)]"""
        origin = newest.injection
        basis = torch.stack([(e.injection - origin).reshape(-1) for e in older]).double()
        target = (u - origin).reshape(-1).double()
        gram = basis @ basis.T
        tiny = torch.finfo(torch.float64).tiny
        ridge = self.noise**2 * u.double().square().sum() + 1e-14 * gram.diagonal().sum() + tiny
        gram.diagonal().add_(ridge)
        coefficients: Tensor = torch.linalg.solve_ex(gram, basis @ target)[0]
        return coefficients

    def update(self, u: Tensor, *solutions: Tensor) -> None:
        """Store the solutions found for ``u``. Another shape, dtype, device or number of solutions starts afresh."""
        entry = _Entry(u.detach(), tuple(s.detach() for s in solutions))
        self._before = self._entries
        same = [e for e in self._entries if e.like(u) and len(e.solutions) == len(solutions)]
        self._entries = (*same, entry)[-self.history :]

    def undo(self) -> None:
        """Back to the state before the last `update`, as for a rejected Monte Carlo move.

        Raises:
            RuntimeError: without an update to take back (each can be taken back once).
        """
        if self._before is None:
            raise RuntimeError("there is no update to undo: call update() first; only the last one can be undone")
        self._entries, self._before = self._before, None

    def reset(self) -> None:
        """Forget everything: species, atom order, cell or neighbour structure have jumped."""
        self._entries, self._before = (), None
