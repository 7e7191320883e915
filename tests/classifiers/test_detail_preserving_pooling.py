"""Pooling: the published formula, its limits, its derivatives."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.classifiers.layers.detail_preserving_pooling import (
    EPSILON,
    KINDS,
    DetailPreservingPool,
    filtered,
    mean,
    pooling,
    sliding_sites,
)

DPP = [kind for kind in KINDS if kind.startswith("dpp")]
SHAPES = {1: (2, 3, 8), 2: (2, 3, 4, 6)}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(kind: str, n_axes: int, *, alpha: float = 0.4, lambda_: float = 1.7) -> DetailPreservingPool:
    """A layer with other than its first parameters, for evaluation."""
    made = pooling(kind, 3, 2, n_axes).double().eval()  # type: ignore[arg-type]
    assert isinstance(made, DetailPreservingPool)
    with torch.no_grad():
        made.log_alpha.copy_(math.log(alpha) + 0.1 * torch.arange(3))
        made.log_lambda.copy_(math.log(lambda_) - 0.1 * torch.arange(3))
        if made.filter is not None:
            made.filter.add_(0.1 * randn(*made.filter.shape))
    return made


def average(x: torch.Tensor) -> torch.Tensor:
    return pooling("average", 3, 2, x.ndim - 2)(x)


@pytest.mark.parametrize("kind", [kind for kind in DPP if kind != "dpp-stochastic"])
def test_published_formula(kind: str) -> None:
    """Site by site, in plain numbers."""
    image, pool = randn(*SHAPES[2]), layer(kind, 2).requires_grad_(False)
    smooth = average(image).repeat_interleave(2, 2).repeat_interleave(2, 3)
    if pool.filter is not None:
        smooth = filtered(image, pool.filter)
    found, x = pool(image), torch.empty_like(image)
    for index in torch.cartesian_prod(*map(torch.arange, image.shape)).tolist():
        difference = float(image[*index] - smooth[*index])
        x[*index] = (difference if "asymmetric" not in kind else max(difference, 0.0)) ** 2 + EPSILON
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        sites = [(n, c, 2 * i + a, 2 * j + b) for a in (0, 1) for b in (0, 1)]
        mean = sum(float(x[site]) for site in sites) / 4
        alpha, lambda_ = float(pool.log_alpha[c].exp()), float(pool.log_lambda[c].exp())
        weights = [alpha + (float(x[site]) / mean) ** (lambda_ / 2) for site in sites]
        expected = sum(w * float(image[site]) for w, site in zip(weights, sites, strict=True)) / sum(weights)
        assert float(found[n, c, i, j]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_axes", [1, 2])
@pytest.mark.parametrize("kind", DPP)
def test_limits_are_the_average(kind: str, n_axes: int) -> None:
    image = randn(*SHAPES[n_axes])
    expected = average(mean(sliding_sites(image, 2))) if kind == "dpp-stochastic" else average(image)
    for pool in (layer(kind, n_axes, lambda_=1e-14), layer(kind, n_axes, alpha=1e14)):
        torch.testing.assert_close(pool(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in DPP if kind != "dpp-stochastic"])
def test_steep_rewards_pick_the_detail(kind: str) -> None:
    """λ → ∞ and α → 0: the site that differs most; of the asymmetric variants the largest."""
    image = torch.tensor([[[0.0, 0.0, 0.0, 3.0, 1.0, 1.0, -4.0, 1.0]]], dtype=torch.float64)
    pool = pooling(kind, 1, 4).double()  # type: ignore[arg-type]
    with torch.no_grad():
        pool.log_alpha.fill_(-60.0)
        pool.log_lambda.fill_(4.0)
    expected = [3.0, 1.0] if "asymmetric" in kind else [3.0, -4.0]
    torch.testing.assert_close(pool(image)[0, 0].tolist(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_axes", [1, 2])
@pytest.mark.parametrize("kind", DPP)
def test_gradients(kind: str, n_axes: int) -> None:
    pool, image = layer(kind, n_axes), randn(*SHAPES[n_axes], seed=3)[:, :, :4].requires_grad_()
    names, values = zip(*pool.named_parameters(), strict=True)

    def function(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.func.functional_call(pool, dict(zip(names, parameters, strict=True)), x)
        return result

    assert torch.autograd.gradcheck(function, (image, *values))


@given(st.sampled_from(KINDS), st.floats(-3, 3), st.integers(0, 99))
def test_result_lies_within_the_window(kind: str, size: float, seed: int) -> None:
    """A mean with positive weights; a constant map stays what it is."""
    image = 10**size * randn(2, 3, 8, seed=seed)
    pool = pooling(kind, 3, 2).double().eval()  # type: ignore[arg-type]
    assert pool(image).shape == (2, 3, 4)
    if kind == "strided":
        return
    ones = torch.full_like(image, 0.7)
    torch.testing.assert_close(pool(ones), ones[:, :, ::2])
    if kind != "dpp-stochastic":
        blocks = image.unflatten(-1, (4, 2))
        assert (pool(image) <= blocks.amax(-1) + 1e-9).all()
        assert (pool(image) >= blocks.amin(-1) - 1e-9).all()


@pytest.mark.parametrize("n_axes", [1, 2])
def test_stochastic_keeps_a_site_of_every_block(n_axes: int) -> None:
    pool, image = layer("dpp-stochastic", n_axes), randn(*SHAPES[n_axes])
    expected = pool(image)
    pool.train()
    torch.manual_seed(0)
    draws = torch.stack([pool(image) for _ in range(400)])
    assert (draws.std(0) > 0).all()
    torch.testing.assert_close(draws.mean(0), expected, rtol=0, atol=0.15)  # the average of what may be drawn
    assert len(draws[:, 0, 0].flatten(1)[:, 0].unique()) == 2**n_axes


def test_plain_kinds() -> None:
    image = torch.arange(8.0).view(1, 1, 8)
    assert pooling("max", 1, 4)(image).tolist() == [[[3.0, 7.0]]]
    assert pooling("average", 1, 4)(image).tolist() == [[[1.5, 5.5]]]
    assert pooling("strided", 1, 4)(image).shape == (1, 1, 2)


def test_errors() -> None:
    with pytest.raises(ValueError, match="'median'; allowed are dpp-lite"):
        pooling("median", 3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(7,\) sites; windows of 2"):
        pooling("dpp-lite", 3, 2)(randn(1, 3, 7))
    with pytest.raises(ValueError, match="windows of 2"):
        pooling("max", 3, 2)(randn(1, 3, 7))
    with pytest.raises(ValueError, match="1 or 2 axes"):
        DetailPreservingPool(3, 2, 3)
