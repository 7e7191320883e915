"""Errors of averages of correlated series."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.mc import (
    Blocking,
    MoveRecord,
    autocorrelation,
    estimate,
    integrated_autocorrelation_time,
)


def autoregressive(memory, n, seed):
    """x' = memory x + sqrt(1 - memory^2) noise: rho(t) = memory^t, 2 tau = (1 + memory) / (1 - memory), variance 1."""
    noise = np.random.default_rng(seed).standard_normal(n)
    noise[1:] *= math.sqrt(1.0 - memory**2)
    x = np.empty(n)
    x[0] = noise[0]
    for i in range(1, n):
        x[i] = memory * x[i - 1] + noise[i]
    return x


def test_autocorrelation_of_a_known_process():
    rho = autocorrelation(autoregressive(0.8, 100_000, 0))
    assert rho[0] == 1.0
    np.testing.assert_allclose(rho[:10], 0.8 ** np.arange(10), atol=0.03)


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_autocorrelation_is_the_sum_it_says(seed, n):
    x = np.random.default_rng(seed).standard_normal(n)
    off = x - x.mean()
    sums = [(off[: n - t] * off[t:]).mean() for t in range(n)]
    np.testing.assert_allclose(autocorrelation(x), np.array(sums) / sums[0], atol=1e-9)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, -0.5])
def test_tau_of_a_known_process(memory):
    tau = 0.5 * (1.0 + memory) / (1.0 - memory)
    assert integrated_autocorrelation_time(autoregressive(memory, 50_000, 1)) == pytest.approx(tau, rel=0.15)


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_errors_are_those_of_repetition(memory):
    """The spread of the means of many series is what each of them says, both in one go and on the fly."""
    found, blocked = [], []
    for seed in range(100):
        x = 5.0 + autoregressive(memory, 2000, seed)
        found.append(estimate(x))
        blocking = Blocking()
        for value in x.tolist():
            blocking.add(value)
        blocked.append(blocking.estimate())
    spread = np.std([one.mean for one in found], ddof=1)
    for several in (found, blocked):
        errors = np.array([one.error for one in several])
        assert errors.mean() == pytest.approx(spread, rel=0.25)
        off = (np.array([one.mean for one in several]) - 5.0) / errors
        assert np.mean(np.abs(off) < 2.0) > 0.88
        assert np.mean([one.tau for one in several]) == pytest.approx(0.5 * (1 + memory) / (1 - memory), rel=0.2)
    assert found[0].mean == pytest.approx(blocked[0].mean, abs=1e-12)


def test_blocking_keeps_little_and_is_exact_for_large_offsets():
    blocking, x = Blocking(), 1e9 + autoregressive(0.0, 5000, 3)
    for value in x.tolist():
        blocking.add(value)
    assert len(blocking.counts) <= 13
    assert blocking.counts[:3] == [5000, 2500, 1250]
    assert blocking.means[0] == pytest.approx(x.mean(), abs=1e-5)
    assert blocking.squares[0] == pytest.approx(((x - x.mean()) ** 2).sum(), rel=1e-6)


def test_a_constant_series_has_no_error():
    found = estimate(np.full(10, 3.0))
    assert (found.mean, found.error, found.tau) == (3.0, 0.0, 0.5)
    blocking = Blocking()
    assert math.isnan(blocking.estimate().mean)
    for _ in range(10):
        blocking.add(3.0)
    assert (blocking.estimate().mean, blocking.estimate().error) == (3.0, 0.0)


def test_short_series_say_so():
    x = autoregressive(0.99, 200, 0)
    assert not estimate(x).reliable
    assert "too short" in str(estimate(x))
    assert estimate(autoregressive(0.0, 2000, 0)).reliable
    assert estimate(autoregressive(0.5, 3000, 0)).n_effective == pytest.approx(1000, rel=0.25)


@pytest.mark.parametrize("series", [[], [1.0], [1.0, math.nan], [[1.0, 2.0]], [1.0, math.inf]])
def test_what_is_no_series_is_refused(series):
    with pytest.raises(ValueError, match="one axis of at least two finite numbers"):
        estimate(series)


def test_acceptance():
    assert MoveRecord(8, 2).acceptance == 0.25
    assert math.isnan(MoveRecord().acceptance)
