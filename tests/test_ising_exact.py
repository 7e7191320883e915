"""What the Ising benchmark compares with: against a sum over all states, and the limits that are known."""

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest

from benchmarks.sampling import ising_exact as exact


@pytest.mark.parametrize("temperature", [1.0, 2.0, 2.5, 5.0])
@pytest.mark.parametrize("size", [3, 4])
def test_finite_lattices(size: int, temperature: float) -> None:
    spins = np.array(list(itertools.product((-1, 1), repeat=size**2)), np.int8).reshape(-1, size, size)
    energies = -sum(spins * np.roll(spins, 1, axis) for axis in (1, 2)).sum((1, 2), dtype=float)
    weights = np.exp(-(energies - energies.min()) / temperature)
    mean = (weights * energies).sum() / weights.sum() / size**2
    assert exact.finite_energy(temperature, size) == pytest.approx(mean, abs=1e-7)


def test_the_infinite_lattice() -> None:
    assert exact.onsager_energy(exact.CRITICAL * (1 + 1e-9)) == pytest.approx(-np.sqrt(2.0), abs=1e-6)
    for temperature in (1.5, 3.5):
        assert exact.onsager_energy(temperature) == pytest.approx(exact.finite_energy(temperature, 64), abs=1e-7)
    assert exact.yang_magnetisation(1.0) == pytest.approx(0.999276, abs=1e-6)
    assert exact.yang_magnetisation(2.2) == pytest.approx(0.7848, abs=1e-4)
    assert exact.yang_magnetisation(2.3) == 0.0


def onsager(temperature: float) -> float:
    """As it stands in the paper, with so many digits that 0 · ∞ does not occur."""
    with mpmath.workdps(60):
        k = 2 / mpmath.mpf(temperature)
        kappa = 2 * mpmath.sinh(k) / mpmath.cosh(k) ** 2
        return float(-mpmath.coth(k) * (1 + 2 / mpmath.pi * (2 * mpmath.tanh(k) ** 2 - 1) * mpmath.ellipk(kappa**2)))


def around(temperature: float, n: int = 8) -> np.ndarray:
    """The next floating-point numbers on both sides, and powers of ten further away."""
    found = [temperature]
    for direction in (0.0, np.inf):
        for _ in range(n):
            found.append(np.nextafter(found[-1], direction))
        found.append(temperature)
    away = 10.0 ** np.linspace(-15.0, -3.0, 40)
    return np.concatenate([found, temperature * (1 - away), temperature * (1 + away)])


def test_next_to_the_critical_temperature() -> None:
    for temperature in around(float(exact.CRITICAL)):
        assert exact.onsager_energy(temperature) == pytest.approx(onsager(temperature), abs=1e-13), temperature
        assert 0.0 <= exact.yang_magnetisation(temperature) < 0.6
        assert exact.finite_energy(temperature, 8) == pytest.approx(exact.finite_energy(2.27, 8), abs=1e-2)


@pytest.mark.parametrize("bits", [-3, -1, 1, 3])
def test_a_mathematics_library_with_other_last_bits(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `tanh` gives next to T_c is moved by some units in the last place, over the pole and back."""
    tanh = np.tanh

    def other(x: Any) -> Any:
        return tanh(x) + bits * np.spacing(tanh(x))

    monkeypatch.setattr(np, "tanh", other)
    for temperature in around(float(exact.CRITICAL)):
        assert exact.onsager_energy(temperature) == pytest.approx(onsager(temperature), abs=1e-13)
        assert 0.0 <= exact.yang_magnetisation(temperature) < 0.6


def test_far_from_the_critical_temperature() -> None:
    for temperature in (1e-3, 0.1, 1.0, 2.0, 3.0, 10.0, 100.0):
        assert exact.onsager_energy(temperature) == pytest.approx(onsager(temperature), abs=1e-12), temperature
    assert exact.yang_magnetisation(1e-3) == 1.0
