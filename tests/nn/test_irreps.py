"""Rows of scalars and tensors: maps that keep ranks apart, an activation that expands nothing, and its derivative."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.nn.irreps import (
    dim,
    join,
    mapped,
    norm_activation,
    norm_activation_derivative,
    norm_activation_jvp,
    split,
    transposed,
)

SCALARS, TENSORS = 3, 2
RANKS = [0, 1, 2, 3]
seeds = st.integers(0, 2**31)
sizes = st.floats(1e-3, 1e3)


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rank", RANKS)
def test_rows_are_split_and_joined(rank: int) -> None:
    row = randn(0, 5, dim(SCALARS, TENSORS, rank))
    parts = split(row, SCALARS, rank)
    assert [tuple(part.shape) for part in parts] == [(5, 3), (5, 3, 2), (5, 5, 2), (5, 7, 2)][: rank + 1]
    assert torch.equal(join(parts), row)


@pytest.mark.parametrize("rank", RANKS)
@given(seed=seeds, size=sizes, distance=sizes)
def test_the_activation_expands_no_distance(rank: int, seed: int, size: float, distance: float) -> None:
    x = size * randn(seed, 4, dim(SCALARS, TENSORS, rank))
    y = x + distance * randn(seed + 1, *x.shape)
    images = [norm_activation(row, SCALARS, rank) for row in (x, y)]
    assert bool(((images[0] - images[1]).norm(dim=1) <= (x - y).norm(dim=1) * (1 + 1e-9)).all())


@pytest.mark.parametrize("rank", RANKS)
def test_the_slope_is_the_derivative_and_its_own_transpose(rank: int) -> None:
    x, t, s = (2 * randn(seed, 4, dim(SCALARS, TENSORS, rank)) for seed in range(3))

    def f(row: torch.Tensor) -> torch.Tensor:
        return norm_activation(row, SCALARS, rank)

    slope = norm_activation_derivative(x, SCALARS, rank)
    along = norm_activation_jvp(slope, t, SCALARS, rank)
    torch.testing.assert_close(along, torch.func.jvp(f, (x,), (t,))[1])
    torch.testing.assert_close((s * along).sum(), (t * norm_activation_jvp(slope, s, SCALARS, rank)).sum())


@pytest.mark.parametrize("rank", RANKS)
def test_a_map_and_its_transpose(rank: int) -> None:
    """Ranks may change their number of channels; all components of a tensor are mapped alike."""
    matrices = [randn(10, 4, SCALARS), *(randn(11 + i, 5, TENSORS) for i in range(rank))]
    x, y = randn(1, 6, dim(SCALARS, TENSORS, rank)), randn(2, 6, dim(4, 5 if rank else 0, rank))
    mapped_x = mapped(x, matrices)
    torch.testing.assert_close((y * mapped_x).sum(), (x * mapped(y, transposed(matrices))).sum())
    for part, image, matrix in zip(split(x, SCALARS, rank), split(mapped_x, 4, rank), matrices, strict=True):
        torch.testing.assert_close(image, torch.einsum("ij,...j->...i", matrix, part))
