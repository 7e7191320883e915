"""What the Ising benchmark compares with: against a sum over all states, and the limits that are known."""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def exact() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        import ising_exact
    finally:
        sys.path.pop(0)
    return ising_exact


@pytest.mark.parametrize("temperature", [1.0, 2.0, 2.5, 5.0])
@pytest.mark.parametrize("size", [3, 4])
def test_finite_lattices(exact: Any, size: int, temperature: float) -> None:
    spins = np.array(list(itertools.product((-1, 1), repeat=size**2)), np.int8).reshape(-1, size, size)
    energies = -sum(spins * np.roll(spins, 1, axis) for axis in (1, 2)).sum((1, 2), dtype=float)
    weights = np.exp(-(energies - energies.min()) / temperature)
    mean = (weights * energies).sum() / weights.sum() / size**2
    assert exact.finite_energy(temperature, size) == pytest.approx(mean, abs=1e-7)


def test_the_infinite_lattice(exact: Any) -> None:
    assert exact.onsager_energy(exact.CRITICAL * (1 + 1e-9)) == pytest.approx(-np.sqrt(2.0), abs=1e-6)
    for temperature in (1.5, 3.5):
        assert exact.onsager_energy(temperature) == pytest.approx(exact.finite_energy(temperature, 64), abs=1e-7)
    assert exact.yang_magnetisation(1.0) == pytest.approx(0.999276, abs=1e-6)
    assert exact.yang_magnetisation(2.2) == pytest.approx(0.7848, abs=1e-4)
    assert exact.yang_magnetisation(2.3) == 0.0
