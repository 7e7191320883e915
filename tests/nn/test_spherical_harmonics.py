"""Spherical harmonics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.nn.spherical_harmonics import L_MAX, degrees, harmonics

seeds = st.integers(0, 2**31)


def unit_vectors(seed: int, n: int = 20) -> torch.Tensor:
    x = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def by_degree(values: torch.Tensor, l_max: int) -> torch.Tensor:
    """Sums over the components of each degree [..., l_max + 1]."""
    parts = torch.split(values, [2 * degree + 1 for degree in range(l_max + 1)], -1)
    return torch.stack([part.sum(-1) for part in parts], -1)


@given(seeds)
def test_addition_theorem(seed: int) -> None:
    """`Σ_m Y_lm(u) Y_lm(v) = P_l(u · v)`."""
    u, v = unit_vectors(seed), unit_vectors(seed + 1)
    products = by_degree(harmonics(u, L_MAX) * harmonics(v, L_MAX), L_MAX)
    legendre = np.polynomial.legendre.legvander((u * v).sum(-1).numpy(), L_MAX)
    np.testing.assert_allclose(products.numpy(), legendre, rtol=0, atol=1e-13)


def test_harmonics_are_orthogonal_on_the_sphere() -> None:
    """`∫ Y_lm Y_l'm' dΩ = 4π / (2l + 1) δ`, by a quadrature that is exact for products of two."""
    cosines, weights = np.polynomial.legendre.leggauss(L_MAX + 1)
    n = 2 * L_MAX + 2
    angles = 2 * np.pi * np.arange(n) / n
    c, a = (x.ravel() for x in np.meshgrid(cosines, angles, indexing="ij"))
    s = np.sqrt(1 - c * c)
    y = harmonics(torch.tensor(np.stack([s * np.cos(a), s * np.sin(a), c], -1)), L_MAX).numpy()
    w = np.repeat(weights, n) * 2 * np.pi / n
    expected = np.diag([4 * np.pi / (2 * degree + 1) for degree in degrees(L_MAX)])
    np.testing.assert_allclose(y.T @ (w[:, None] * y), expected, atol=1e-13)


def test_parity() -> None:
    u = unit_vectors(0)
    signs = torch.tensor([(-1.0) ** degree for degree in degrees(L_MAX)], dtype=torch.float64)
    torch.testing.assert_close(harmonics(-u, L_MAX), signs * harmonics(u, L_MAX), rtol=0, atol=1e-14)


@pytest.mark.parametrize("l_max", range(L_MAX + 1))
def test_lower_degrees_come_first(l_max: int) -> None:
    u = unit_vectors(1)
    y = harmonics(u, l_max)
    n = (l_max + 1) ** 2
    assert y.shape == (len(u), n)
    assert len(degrees(l_max)) == n
    assert torch.equal(y, harmonics(u, L_MAX)[:, :n])


@pytest.mark.parametrize("l_max", [-1, 9])
def test_degrees_that_are_not_there(l_max: int) -> None:
    with pytest.raises(ValueError, match=f"l_max is {l_max}; spherical harmonics are given for 0 to 8"):
        harmonics(unit_vectors(0), l_max)
