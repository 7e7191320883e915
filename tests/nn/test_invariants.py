"""The bispectrum, held against the sum over triples of neighbours that it stands for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ase_andersonn.nn.invariants import Bispectrum, by_pairs, triples
from ase_andersonn.nn.spherical_harmonics import harmonics

N_EDGE, N_CHANNELS = 3, 4
seeds = st.integers(0, 2**31)


def bispectrum(l_max: int = 4, seed: int = 0) -> Bispectrum:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Bispectrum(N_EDGE, N_CHANNELS, l_max).double().requires_grad_(False)


def neighbors(seed: int = 0, n: int = 5) -> tuple[Tensor, Tensor]:
    """Directions [n, 3] and their weights [n, N_EDGE]."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64, generator=generator), dim=-1)
    return u, torch.randn(n, N_EDGE, dtype=torch.float64, generator=generator)


def density(u: Tensor, weights: Tensor, l_max: int = 4) -> Tensor:
    """`Σ_k w_k Y_lm(u_k)` of one atom [1, (l_max + 1)², N_EDGE]."""
    return (harmonics(u, l_max).T @ weights)[None]


def test_the_first_is_the_sum_over_triples_of_neighbors() -> None:
    """Of degrees 1, 1 and 2 it is `Σ_ijk a_i a_j b_k [3/2 (u_i·u_k)(u_j·u_k) − 1/2 u_i·u_j]`."""
    module, (u, weights) = bispectrum(), neighbors()
    cosine = u @ u.T
    kernel = 1.5 * cosine[:, None, :] * cosine[None, :, :] - 0.5 * cosine[:, :, None]
    a, b = module.mix[0](weights), module.mix[1](weights)
    expected = torch.einsum("ijk,ic,jc,kc->c", kernel, a, a, b)
    torch.testing.assert_close(module(density(u, weights))[0, :N_CHANNELS], expected, rtol=1e-12, atol=1e-12)


def test_of_one_neighbor_every_product_is_that_of_the_weights() -> None:
    module, (u, weights) = bispectrum(), neighbors(1, n=1)
    mixed = [mix(weights)[0] for mix in module.mix]
    expected = torch.cat([mixed[i - 1] * mixed[j - 1] * mixed[k - 1] for i, j, k in module.triples])
    torch.testing.assert_close(module(density(u, weights))[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("l_max", [2, 4, 8])
@given(seed=seeds)
def test_rotations_and_reflections_do_not_matter(l_max: int, seed: int) -> None:
    module, (u, weights) = bispectrum(l_max), neighbors(seed)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    for matrix in (rotation, -rotation):
        torch.testing.assert_close(
            module(density(u @ matrix, weights, l_max)), module(density(u, weights, l_max)), rtol=1e-10, atol=1e-10
        )


def test_it_separates_environments_with_the_same_power_spectrum() -> None:
    """Two sets of four points on a circle have the same distances between their pairs, and are not congruent."""
    sets = [torch.tensor(places, dtype=torch.float64) * (math.pi / 4) for places in ([0, 1, 2, 5], [0, 1, 3, 4])]
    u = [torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1) for angle in sets]
    first, second = (density(directions, torch.ones(4, N_EDGE, dtype=torch.float64)) for directions in u)
    for degree in range(5):
        own = slice(degree**2, (degree + 1) ** 2)
        torch.testing.assert_close(first[:, own].square().sum(1), second[:, own].square().sum(1))
    module = bispectrum()
    assert float((module(first) - module(second)).abs().max()) > 0.1


@pytest.mark.parametrize(("l_max", "n_triples"), [(2, 2), (3, 4), (4, 9)])
def test_products_are_those_of_the_degrees_there_are(l_max: int, n_triples: int) -> None:
    module, (u, weights) = bispectrum(l_max), neighbors()
    assert module.n_features == n_triples * N_CHANNELS
    assert module(density(u, weights, l_max)).shape == (1, module.n_features)


def test_tables_stay_in_double_precision() -> None:
    module = bispectrum().float().double()
    for own, other in zip(module.couplings, bispectrum().couplings, strict=True):
        assert torch.equal(own.table, other.table)


@pytest.mark.parametrize("l_max", [2, 3, 4, 8])
def test_pairs_make_every_triple_once(l_max: int) -> None:
    pairs = by_pairs(l_max)
    made = sorted(tuple(sorted((*pair, third))) for pair, coupled in pairs.items() for third in coupled)
    assert made == triples(l_max)
    assert all(third % 2 == 0 for coupled in pairs.values() for third in coupled)
