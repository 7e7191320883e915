"""Tiles of grids: extensive, shifted by their focus without notice, and the same as a strided convolution."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ase_andersonn.lattice.grid import TileGrid
from ase_andersonn.lattice.networks import (
    Convolutional,
    Equilibrium,
    FullyConnected,
    TileNetwork,
    UnsolvedError,
    cell,
    equilibrium,
)

KINDS = ["fully_connected", "convolutional", "equilibrium"]
seeds = st.integers(0, 2**31)


def grid_of(n_axes: int, focus: int, context: int, periodic: bool | tuple[bool, ...] = True) -> TileGrid:
    rings = (periodic,) * n_axes if isinstance(periodic, bool) else periodic
    return TileGrid((focus,) * n_axes, (context,) * n_axes, rings)


def network_of(kind: str, grid: TileGrid, seed: int = 0, n_in: int = 1) -> TileNetwork:
    torch.manual_seed(seed)
    kinds: dict[str, Any] = {
        "fully_connected": lambda: FullyConnected(grid, n_in, 5, n_layers=2),
        "convolutional": lambda: Convolutional(grid, n_in, 4),
        "equilibrium": lambda: Equilibrium(grid, n_in, 6),
    }
    network: TileNetwork = kinds[kind]().double()
    return network


def randn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def energy(network: TileNetwork, grid: TileGrid, x: torch.Tensor) -> torch.Tensor:
    return network(grid.pad(x)).flatten(1).sum(1)


shapes = pytest.mark.parametrize(
    ("sizes", "focus", "context"), [((9,), 3, 1), ((8, 12), 4, 2), ((5, 7), 1, 1), ((6, 6, 9), 3, 1)]
)
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@shapes
def test_energy_is_extensive(kind: str, sizes: tuple[int, ...], focus: int, context: int) -> None:
    grid = grid_of(len(sizes), focus, context)
    network, x = network_of(kind, grid), randn(1, 1, *sizes)
    doubled = x.repeat(1, 1, *(2 for _ in sizes))
    torch.testing.assert_close(energy(network, grid, doubled), 2 ** len(sizes) * energy(network, grid, x))


@kinds
@shapes
def test_a_shift_by_the_focus_changes_nothing(kind: str, sizes: tuple[int, ...], focus: int, context: int) -> None:
    grid = grid_of(len(sizes), focus, context)
    network, x = network_of(kind, grid), randn(1, 1, *sizes)
    axes = tuple(range(2, 2 + len(sizes)))
    shifted = x.roll([focus * (k + 1) for k in range(len(sizes))], axes)
    torch.testing.assert_close(energy(network, grid, shifted), energy(network, grid, x))
    if focus > 1:
        assert (energy(network, grid, x.roll(1, 2)) - energy(network, grid, x)).abs().item() > 1e-6


@kinds
@pytest.mark.parametrize("periodic", [True, False])
@shapes
def test_tiles_one_by_one_are_a_convolution(
    kind: str, periodic: bool, sizes: tuple[int, ...], focus: int, context: int
) -> None:
    """The whole grid in one convolution, and each tile on its own: the same energies, of the same gradient."""
    grid = grid_of(len(sizes), focus, context, periodic)
    network, x = network_of(kind, grid, n_in=2), randn(3, 2, *sizes).requires_grad_()
    whole = network(grid.pad(x))
    tiles = grid.gather(x)
    assert tiles.shape == (3, *grid.n_tiles(sizes), 2, *grid.tile)
    single = network(tiles.flatten(0, len(sizes))).reshape(whole.shape)
    torch.testing.assert_close(single, whole, rtol=1e-9, atol=1e-9)
    weights = randn(*whole.shape, seed=2)
    gradients = [torch.autograd.grad((e * weights).sum(), x, retain_graph=True)[0] for e in (single, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)


def test_a_fully_connected_network_is_a_convolution_and_pointwise_ones() -> None:
    """Against torch's own layers: a linear layer on flattened tiles."""
    grid = grid_of(2, 2, 1)
    network = FullyConnected(grid, 1, 7).double()
    x = randn(2, 1, 6, 8)
    first = nn.functional.linear(grid.gather(x).flatten(3), network.first.weight.flatten(1), network.first.bias)
    expected = network.rest[0](nn.functional.silu(first)).squeeze(-1)
    torch.testing.assert_close(network(grid.pad(x)), expected)
    ringed = nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
    torch.testing.assert_close(grid.pad(x), ringed)
    convolved = nn.functional.conv2d(ringed, network.first.weight, network.first.bias, stride=2)
    torch.testing.assert_close(convolved.movedim(1, -1), first)


def test_tiles_hold_the_sites_they_should() -> None:
    grid = grid_of(2, 2, 1, (True, False))
    x = torch.arange(1, 31, dtype=torch.float64).view(1, 1, 6, 5)
    tiles = grid.gather(x)
    assert tiles.shape == (1, 3, 3, 1, 4, 4)
    for i, j in itertools.product(range(3), range(3)):
        for a, b in itertools.product(range(4), range(4)):
            row, column = (2 * i - 1 + a) % 6, 2 * j - 1 + b
            inside = 0 <= column < 5
            assert tiles[0, i, j, 0, a, b] == (x[0, 0, row, column] if inside else 0.0)


def test_an_open_axis_takes_any_size_and_ends_there() -> None:
    grid, ring = grid_of(1, 4, 1, False), grid_of(1, 4, 1)
    network = network_of("fully_connected", grid)
    assert grid.n_tiles((1,)) == (1,)
    assert grid.n_tiles((9,)) == (3,)
    x = randn(1, 1, 12)
    x[..., 0] = x[..., -1] = 0.0
    padded = torch.cat((x, x.new_zeros(1, 1, 4)), 2)
    # sites that hold nothing, as far as the context reaches, make an open edge of a ring
    torch.testing.assert_close(network(grid.pad(padded)), network(ring.pad(padded)))
    assert not torch.allclose(network(grid.pad(randn(1, 1, 12))), network(ring.pad(randn(1, 1, 12))))


@kinds
def test_gradient_is_the_finite_difference(kind: str) -> None:
    grid = grid_of(2, 2, 1)
    network, x = network_of(kind, grid), randn(1, 1, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: energy(network, grid, x), x, eps=1e-5, atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda x: energy(network, grid, x), x, eps=1e-5, atol=1e-6)


def test_weights_of_an_equilibrium_network_have_exact_gradients() -> None:
    grid = grid_of(1, 1, 1)
    network, x = network_of("equilibrium", grid), randn(1, 1, 4).requires_grad_()
    with torch.no_grad():
        network.mix.copy_(randn(6, 6))  # its norm has no derivative at the orthogonal matrix of the start
    names = [name for name, _ in network.named_parameters()]

    def force_loss(*parameters: torch.Tensor) -> torch.Tensor:
        called = torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (grid.pad(x),))
        (force,) = torch.autograd.grad(called.sum(), x, create_graph=True)
        return called.sum() + 0.3 * force.square().sum()

    parameters = tuple(p.detach().clone().requires_grad_() for p in network.parameters())
    assert torch.autograd.gradcheck(force_loss, parameters, eps=1e-5, atol=1e-6)


def test_small_incoming_gradients_are_not_lost() -> None:
    """Second derivatives scale with what is asked for, however small."""
    grid = grid_of(1, 1, 1)
    network, x = network_of("equilibrium", grid), randn(1, 1, 4).requires_grad_()

    def curvature(scale: float) -> torch.Tensor:
        (force,) = torch.autograd.grad(scale * energy(network, grid, x).sum(), x, create_graph=True)
        return torch.autograd.grad(force.square().sum() / scale**2, x)[0]

    torch.testing.assert_close(curvature(1e-9), curvature(1.0), rtol=1e-7, atol=1e-9)


@kinds
@settings(max_examples=10)
@given(seed=seeds)
def test_a_grid_in_a_batch_is_as_if_alone(kind: str, seed: int) -> None:
    grid = grid_of(2, 2, 1)
    network, x = network_of(kind, grid), 3 * randn(4, 1, 6, 4, seed=seed)
    together = energy(network, grid, x)
    alone = torch.cat([energy(network, grid, row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(seed=seeds, size=st.floats(0.01, 100.0), contraction=st.sampled_from([0.3, 0.7, 0.9]))
def test_the_equilibrium_cell_contracts_and_converges(seed: int, size: float, contraction: float) -> None:
    network = Equilibrium(grid_of(2, 1, 1), 1, 8, contraction).double()
    with torch.no_grad():
        network.mix.copy_(size * randn(8, 8, seed=seed))
    matrix, v = network.matrix().detach(), size * randn(20, 8, seed=seed + 1)
    a, b = randn(20, 8, seed=seed + 2), randn(20, 8, seed=seed + 3)
    distances = (cell(a, v, matrix) - cell(b, v, matrix)).norm(dim=1), (a - b).norm(dim=1)
    assert bool((distances[0] <= contraction * distances[1] * (1 + 1e-9)).all())
    z, adjoint = equilibrium(v, matrix, randn(8, seed=seed + 4))
    assert bool(((cell(z, v, matrix) - z).norm(dim=1) <= 1e-9 * (1 + z.norm(dim=1))).all())
    assert bool(adjoint.isfinite().all())


def test_an_equilibrium_that_is_not_reached_is_an_error() -> None:
    network = network_of("equilibrium", grid_of(1, 1, 1))
    with pytest.raises(UnsolvedError, match="4 of 4 tiles"):
        network(grid_of(1, 1, 1).pad(torch.full((1, 1, 4), torch.nan, dtype=torch.float64)))


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_slabs_give_the_full_grid(most: int) -> None:
    grid = TileGrid((2, 1), (1, 2), (True, False))
    network = network_of("fully_connected", grid)
    padded = grid.pad(randn(1, 1, 8, 5))
    torch.testing.assert_close(torch.cat([network(slab) for slab in grid.slabs(padded, most)], 1), network(padded))


@pytest.mark.parametrize(
    ("sizes", "focus", "context", "message"),
    [
        ((9, 8), 4, 1, "9 sites along the periodic axis 0, which the focus of 4 does not divide; take 8 or 12"),
        ((4, 8), 4, 1, "4 sites along the periodic axis 0, fewer than the 6 of a tile"),
        ((2, 3), 1, 1, "2 sites along the periodic axis 0, fewer than the 3"),
        ((8,), 1, 1, "the grid has 1 axes, the tiles 2"),
    ],
)
def test_tiles_that_do_not_fit(sizes: tuple[int, ...], focus: int, context: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_of(2, focus, context).n_tiles(sizes)


def test_numbers_without_a_meaning() -> None:
    with pytest.raises(ValueError, match="one entry per axis"):
        TileGrid((1, 1), (1,), (True, True))
    with pytest.raises(ValueError, match="at least 1 and 0"):
        TileGrid((0,), (1,), (True,))
    with pytest.raises(ValueError, match="context of at least 2"):
        Convolutional(grid_of(2, 3, 1), 1, 4, n_layers=2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Equilibrium(grid_of(2, 3, 1), 1, 4, contraction=1.0)


def test_four_dimensions_tile_by_tile() -> None:
    grid = grid_of(4, 1, 1)
    network, x = network_of("fully_connected", grid), randn(1, 1, 3, 3, 3, 3)
    assert network(grid.gather(x).flatten(0, 4)).numel() == 81
    with pytest.raises(ValueError, match="gather"):
        network(grid.pad(x))
