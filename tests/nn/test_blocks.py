"""Building blocks and the bounds that make the cell a contraction."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.nn.blocks import (
    SILU_MAX_SLOPE,
    Affine,
    SpeciesLinear,
    bounded,
    lipschitz_silu,
    lipschitz_silu_slope,
    silu,
    soft_clip,
)

seeds = st.integers(0, 2**31)


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_largest_slope_of_silu_is_rounded_up() -> None:
    x = torch.linspace(2.3, 2.5, 200001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(silu(x).sum(), x)
    assert SILU_MAX_SLOPE - 1e-6 < float(slope.max()) <= SILU_MAX_SLOPE


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_activation_never_expands_a_distance(a: float, b: float) -> None:
    x = torch.tensor([a, b], dtype=torch.float64)
    y = lipschitz_silu(x)
    assert float((y[0] - y[1]).abs()) <= float((x[0] - x[1]).abs()) * (1 + 1e-12) + 1e-14


def test_slope_of_the_activation() -> None:
    x = torch.linspace(-20, 20, 1001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(lipschitz_silu(x).sum(), x)
    torch.testing.assert_close(lipschitz_silu_slope(x), slope, rtol=0, atol=1e-14)


@given(seeds, st.floats(1e-3, 100.0), st.floats(0.1, 2.0))
def test_bounded_matrices(seed: int, size: float, bound: float) -> None:
    """The norm is at most the bound; a matrix within it stays as it is, others keep their direction."""
    weight = size * randn(seed, 5, 7)
    result, norm = bounded(weight, bound), float(torch.linalg.matrix_norm(weight, 2))
    assert float(torch.linalg.matrix_norm(result, 2)) <= bound * (1 + 1e-12)
    torch.testing.assert_close(result, weight * min(1.0, bound / norm))


def test_bounded_has_the_right_gradient() -> None:
    assert torch.autograd.gradcheck(bounded, (3 * randn(0, 4, 6)).requires_grad_())
    assert torch.autograd.gradcheck(bounded, (0.1 * randn(0, 4, 6)).requires_grad_())


def test_bounded_orthogonal_matrix_has_a_finite_gradient() -> None:
    """All singular values are the same, as they are when training starts."""
    weight = torch.nn.init.orthogonal_(torch.empty(6, 6, dtype=torch.float64)).mul_(1.5).requires_grad_()
    (gradient,) = torch.autograd.grad(bounded(weight).square().sum(), weight)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("bias", [True, False])
def test_affine(bias: bool) -> None:
    layer, x = Affine(3, 5, bias=bias), torch.randn(2, 4, 3)
    expected = x @ layer.weight + (layer.bias if layer.bias is not None else 0.0)
    assert layer(x).shape == (2, 4, 5)
    assert torch.equal(layer(x), expected)
    assert (layer.bias is not None) == bias


def test_species_have_their_own_gain_and_bias() -> None:
    layer = SpeciesLinear(3, 4, 2)
    torch.nn.init.normal_(layer.gain)
    x, species = torch.randn(1, 3).expand(2, 3), torch.tensor([0, 1])
    y = layer(x, species)
    for i in (0, 1):
        expected = (layer.linear.weight @ x[i]) * (1 + layer.gain[i]) + layer.bias[i]
        torch.testing.assert_close(y[i], expected)
    assert not torch.allclose(y[0], y[1])


@given(seeds, st.floats(0.1, 100.0))
def test_squashed_values_keep_order_and_bounds(seed: int, limit: float) -> None:
    x = limit * randn(seed, 64).mul(3.0).sort().values
    y = soft_clip(x, limit)
    assert bool((y.diff() >= 0).all())
    assert float(y.abs().max()) <= limit
    small = 1e-3 * x / 3.0
    torch.testing.assert_close(soft_clip(small, limit), small, rtol=1e-4, atol=0.0)
