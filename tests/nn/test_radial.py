"""Distances, the envelope, Bessel functions and the nuclear repulsion."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.nn.radial import CLAMP_FRACTION, bessel, clamped_distance, distances, envelope
from ase_andersonn.nn.zbl import zbl_energy

CUTOFF = 4.0


def derivatives(function: object, x: float, orders: int) -> list[float]:
    """Value and derivatives at a point."""
    r = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = function(r)  # type: ignore[operator]
    values = [y.item()]
    for _ in range(orders):
        (y,) = torch.autograd.grad(y, r, create_graph=True)
        values.append(y.item())
    return values


def test_envelope_starts_flat_and_ends_with_two_derivatives() -> None:
    np.testing.assert_allclose(derivatives(lambda r: envelope(r, CUTOFF), 0.0, 2), [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(derivatives(lambda r: envelope(r, CUTOFF), CUTOFF - 1e-9, 2), [0, 0, 0], atol=1e-8)
    assert float(envelope(torch.tensor(CUTOFF), CUTOFF)) == float(envelope(torch.tensor(9.0), CUTOFF)) == 0.0


@given(st.floats(0.0, CUTOFF), st.floats(0.0, CUTOFF))
def test_envelope_falls_between_one_and_zero(a: float, b: float) -> None:
    near, far = envelope(torch.tensor(sorted((a, b)), dtype=torch.float64), CUTOFF).tolist()
    assert 1.0 + 1e-14 >= near >= far - 1e-14 >= -2e-14


SHORTEST = torch.tensor(2.0, dtype=torch.float64)


def test_known_distances_are_seen_as_they_are_and_shorter_ones_as_one() -> None:
    r = torch.linspace(2.0, 6.0, 9, dtype=torch.float64)
    assert torch.equal(clamped_distance(r, SHORTEST), r)
    clamp_fraction = clamped_distance(CLAMP_FRACTION * r / 6.0 * 2.0, SHORTEST)
    assert bool((clamp_fraction == clamp_fraction[0]).all())
    assert 2.0 * CLAMP_FRACTION < clamp_fraction[0].item() < 2.0


@given(st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_seen_distances_rise_with_the_true_ones_and_no_faster(a: float, b: float) -> None:
    near, far = sorted((a, b))
    seen = clamped_distance(torch.tensor([near, far], dtype=torch.float64), SHORTEST).tolist()
    assert -1e-12 <= seen[1] - seen[0] <= far - near + 1e-12


def test_seen_distances_have_three_continuous_derivatives() -> None:
    for place, slopes in ((2.0, [1.0, 0.0, 0.0]), (2.0 * CLAMP_FRACTION, [0.0, 0.0, 0.0])):
        for side in (-1e-7, 1e-7):
            found = derivatives(lambda r: clamped_distance(r, SHORTEST), place + side, 3)[1:]
            np.testing.assert_allclose(found, slopes, atol=1e-4)


@given(st.floats(0.1, CUTOFF))
def test_bessel_functions_are_those_of_the_paper(r: float) -> None:
    k = np.arange(1, 11)
    expected = math.sqrt(2 / CUTOFF) * np.sin(k * math.pi * r / CUTOFF) / r
    np.testing.assert_allclose(bessel(torch.tensor(r, dtype=torch.float64), CUTOFF, 10), expected, atol=1e-12)


def test_bessel_functions_are_orthonormal_in_the_sphere() -> None:
    r, w = np.polynomial.legendre.leggauss(60)
    r, w = 0.5 * CUTOFF * (r + 1), 0.5 * CUTOFF * w
    b = bessel(torch.tensor(r), CUTOFF, 8).numpy()
    np.testing.assert_allclose(b.T @ ((w * r * r)[:, None] * b), np.eye(8), atol=1e-12)


def test_padded_places_have_a_distance_and_no_gradient() -> None:
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    r = distances(vectors, torch.tensor([True, False]))
    assert r.tolist() == [5.0, 1.0]
    (gradient,) = torch.autograd.grad(r.sum(), vectors)
    np.testing.assert_allclose(gradient, [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]], rtol=1e-6)


def pair(r: float | torch.Tensor, z_i: float, z_j: float, onset: float) -> torch.Tensor:
    """Energy of an atom with one neighbour, twice: that of the pair."""
    r = torch.as_tensor(r, dtype=torch.float64).reshape(1, 1)
    args = (torch.full_like(r, z) for z in (z_i, z_j, onset))
    return 2 * zbl_energy(r, *args, torch.ones(1, 1, dtype=torch.bool)).sum()


@pytest.mark.parametrize(("z_i", "z_j"), [(1, 1), (14, 14), (6, 29)])
def test_repulsion_is_the_universal_potential(z_i: int, z_j: int) -> None:
    r = 0.4
    x = r * (z_i**0.23 + z_j**0.23) / (0.8854 * 0.529177)
    screening = sum(
        a * math.exp(-b * x) for a, b in ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
    )
    assert float(pair(r, z_i, z_j, 1e6)) == pytest.approx(14.3996 * z_i * z_j / r * screening, rel=2e-4)


@given(st.floats(0.05, 2.2), st.floats(0.05, 2.2), st.sampled_from([(1, 1), (14, 6), (29, 29)]))
def test_repulsion_repels_until_it_ends(a: float, b: float, charges: tuple[int, int]) -> None:
    near, far = sorted((a, b))
    assert float(pair(near, *charges, 2.2)) >= float(pair(far, *charges, 2.2)) >= 0.0


def test_repulsion_ends_smoothly_and_spares_padded_places() -> None:
    values = derivatives(lambda r: pair(r, 29, 29, 2.2), 2.2 - 1e-9, 2)
    np.testing.assert_allclose(values, [0, 0, 0], atol=1e-5)
    assert float(pair(2.3, 29, 29, 2.2)) == 0.0
    r, charge = torch.ones(1, 1), torch.full((1, 1), 29.0)
    assert float(zbl_energy(r, charge, charge, 3 * r, torch.zeros(1, 1, dtype=torch.bool))) == 0.0
