"""Averages of correlated series with standard errors, and acceptance statistics.

    error^2 = 2 tau variance / n,    tau = 1/2 + sum_t rho(t)

with rho the normalised autocorrelation; tau is 1/2 for independent values. Sokal, Monte Carlo methods in statistical
mechanics (1989): sum up to the smallest window of at least five tau. `Blocking` finds the same on the fly, with memory
that grows as the logarithm of the length: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989), with the block
length of Lee et al., Phys. Rev. E 83, 066706 (2011).
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW = 5.0
RELIABLE_LENGTH = 50.0
"""Length of a series, in tau, from which its error estimate is reliable."""


@dataclass(frozen=True)
class Estimate:
    """Mean of a correlated series with its standard error.

    Args:
        mean: mean of the series.
        error: standard error of the mean.
        tau: integrated autocorrelation time in samples, 1/2 for independent samples.
        n: number of samples.
    """

    mean: float
    error: float
    tau: float
    n: int

    @property
    def n_effective(self) -> float:
        """Effective number of independent samples, n / (2 tau)."""
        return self.n / (2.0 * self.tau) if self.tau > 0 else float(self.n)

    @property
    def reliable(self) -> bool:
        """Whether the series is long enough for a reliable error, n >= 50 tau."""
        return self.n >= RELIABLE_LENGTH * self.tau

    def __str__(self) -> str:
        warning = "" if self.reliable else ", series too short for a reliable error"
        return f"{self.mean:.6g} ± {self.error:.2g} (n = {self.n}, tau = {self.tau:.3g}{warning})"


def autocorrelation(series: ArrayLike) -> NDArray[np.float64]:
    """rho(t) = <(x_s - m)(x_{s+t} - m)>_s / variance for t = 0 ... n - 1; [1, 0, 0, ...] for a constant series.

    Args:
        series: [n], at least two finite numbers.

    Raises:
        ValueError: for a shorter series, more than one axis, or numbers that are not finite.
    """
    x = np.asarray(series, np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(
            f"a series is one axis of at least two finite numbers; the shape given is {x.shape}, "
            f"with {int((~np.isfinite(x)).sum())} numbers that are not finite."
        )
    x = x - x.mean()
    if np.ptp(x) == 0.0:
        return np.concatenate([[1.0], np.zeros(len(x) - 1)])
    spectrum = np.fft.rfft(x, 2 * len(x))  # zero-padded, as the series is not periodic
    sums = np.fft.irfft(np.abs(spectrum) ** 2)[: len(x)]
    rho: NDArray[np.float64] = sums / np.arange(len(x), 0, -1) / (sums[0] / len(x))
    return rho


def integrated_autocorrelation_time(series: ArrayLike, window: float = WINDOW) -> float:
    """tau = 1/2 + sum_{t=1}^{W} rho(t), with the smallest W >= window max(tau(W), 1); in samples.

    Args:
        series: [n].
        window: summation window in tau; a larger one has more noise and less bias.

    Raises:
        ValueError: as `autocorrelation`.
    """
    taus = np.cumsum(autocorrelation(series)) - 0.5
    enough = np.flatnonzero(np.arange(len(taus)) >= window * np.maximum(taus, 1.0))
    tau = taus[enough[0]] if len(enough) else taus.max()
    return float(max(tau, 0.5 / len(taus)))  # below 1/2 for anticorrelated series, but never negative


def estimate(series: ArrayLike, window: float = WINDOW) -> Estimate:
    """Mean of a correlated series with its standard error.

    Args:
        series: [n].
        window: as for `integrated_autocorrelation_time`.

    Raises:
        ValueError: as `autocorrelation`.
    """
    tau = integrated_autocorrelation_time(series, window)
    x = np.asarray(series, np.float64)
    return Estimate(float(x.mean()), math.sqrt(2.0 * tau * float(x.var()) / len(x)), tau, len(x))


@dataclass
class Blocking:
    """Running mean and standard error from averages of blocks of 1, 2, 4, ... values; the series is not stored."""

    counts: list[int] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    waiting: list[float | None] = field(default_factory=list)

    def add(self, value: float) -> None:
        """Add a value. Welford's recurrence at each level is accurate for small variances of large values."""
        level = 0
        while True:
            if level == len(self.counts):
                self.counts.append(0)
                self.means.append(0.0)
                self.squares.append(0.0)
                self.waiting.append(None)
            self.counts[level] += 1
            off = value - self.means[level]
            self.means[level] += off / self.counts[level]
            self.squares[level] += off * (value - self.means[level])
            partner = self.waiting[level]
            if partner is None:
                self.waiting[level] = value
                return
            self.waiting[level] = None
            value = 0.5 * (partner + value)
            level += 1

    def estimate(self) -> Estimate:
        """Current estimate; the error is nan for fewer than two values."""
        if not self.counts or self.counts[0] < 2:
            return Estimate(self.means[0] if self.means else math.nan, math.nan, math.nan, sum(self.counts[:1]))
        n = self.counts[0]
        pairs = zip(self.squares, self.counts, strict=True)
        variances = [square / (count - 1) / count for square, count in pairs if count > 1]
        chosen = variances[-1]
        for level, variance in enumerate(variances):
            if variances[0] == 0.0 or 8.0**level > 2.0 * n * (variance / variances[0]) ** 2:
                chosen = variance
                break
        tau = 0.5 * chosen / variances[0] if variances[0] else 0.5
        return Estimate(self.means[0], math.sqrt(chosen), tau, n)

    def state(self) -> dict[str, Any]:
        """State of the accumulator as JSON."""
        return asdict(self)


@dataclass
class MoveRecord:
    """Acceptance statistics of a move.

    Args:
        attempted: attempted moves; each of simultaneous moves counts.
        accepted: accepted moves.
        impossible: attempts without any possible change in the current state; they count as rejected.
        nonfinite: attempts with an energy that is not finite; they are rejected.
    """

    attempted: int = 0
    accepted: int = 0
    impossible: int = 0
    nonfinite: int = 0

    @property
    def acceptance(self) -> float:
        """Acceptance ratio; nan before the first attempt."""
        return self.accepted / self.attempted if self.attempted else math.nan
