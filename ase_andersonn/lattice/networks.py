"""Networks for the energies of the tiles of a grid.

A network takes a padded grid (`TileGrid.pad`) and returns the energy of each of its tiles. A single tile is the padded
grid of one tile, so the same call evaluates separate tiles; on a full grid the sites shared by tiles are computed once.
This uses an identity: a fully connected network on tiles is a convolution of kernel `f + 2c` and stride `f`, followed
by 1×1 convolutions. All activations are smooth, so the energy is differentiable in the values of the grid.

Mills et al., Chem. Sci. 10, 4129 (2019).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import bounded, lipschitz_silu, lipschitz_silu_slope, silu
from ase_andersonn.solvers import Anderson, Segments, fixed_point, solve, solve_linear
from ase_andersonn.solvers.base import Map

from .grid import TileGrid

CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
MAX_STEPS = 200
"""Largest number of solver steps; for a contraction of 0.9 fewer Picard iterations converge to float64 rounding."""


class UnsolvedError(RuntimeError):
    """The fixed-point solve of a tile did not converge."""


class Window(nn.Module):
    """`y_o = b_o + Σ_is W_ois x_i(s)` over a window of sites that moves by `stride`: a convolution without padding.

    Args:
        n_in, n_out: channels.
        kernel: sites of the window along each axis.
        stride: stride along each axis.
    """

    def __init__(self, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, *kernel) / math.sqrt(n_in * math.prod(kernel)))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """x [n_systems, n_in, *sizes] → [n_systems, n_out, *windows]."""
        if x.shape[2:] == self.weight.shape[2:]:  # a single window: a matrix product is much faster
            y = nn.functional.linear(x.flatten(1), self.weight.flatten(1), self.bias)
            return y.view(*y.shape, *(1 for _ in self.stride))
        if len(self.stride) not in CONVOLUTIONS:
            raise ValueError(f"grids of {len(self.stride)} dimensions are evaluated tile by tile: call gather() first.")
        return CONVOLUTIONS[len(self.stride)](x, self.weight, self.bias, self.stride)


class TileNetwork(nn.Module, ABC):
    """Base of networks for tiles; the input is a padded grid, or tiles.

    Args:
        grid: focus and context.
    """

    def __init__(self, grid: TileGrid) -> None:
        super().__init__()
        self.grid = grid

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Energy of every tile.

        Args:
            x: padded grids [n_systems, n_in, *padded], or tiles [n_rows, n_in, *tile].

        Returns:
            [n_systems, *n_tiles] for grids, [n_rows, 1, ...] for tiles.
        """


class FullyConnected(TileNetwork):
    """`e = W_n φ(… φ(W_1 x + b_1) …) + b_n`, with x all sites of a tile.

    Args:
        grid: focus and context.
        n_in: values per site.
        n_hidden: width of the hidden layers.
        n_layers: number of hidden layers.
    """

    def __init__(self, grid: TileGrid, n_in: int, n_hidden: int, n_layers: int = 1) -> None:
        super().__init__(grid)
        self.first = Window(n_in, n_hidden, grid.tile, grid.focus)
        widths = [n_hidden] * n_layers + [1]
        self.rest = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """See `TileNetwork.forward`."""
        x = self.first(x).movedim(1, -1)
        for linear in self.rest:
            x = linear(silu(x))
        return x.squeeze(-1)


class Convolutional(TileNetwork):
    """Convolutions of stride 1 within the tile, each followed by φ; then a fully connected network on what is left.

    Each convolution takes `kernel − 1` sites off the tile, so n of them need a context of n (kernel − 1) / 2.

    Args:
        grid: focus and context.
        n_in: values per site.
        n_hidden: channels and width.
        n_layers: number of convolutions.
        kernel: sites of a convolution's window along each axis.

    Raises:
        ValueError: if the convolutions would leave less of a tile than its focus.
    """

    def __init__(self, grid: TileGrid, n_in: int, n_hidden: int, n_layers: int = 1, kernel: int = 3) -> None:
        super().__init__(grid)
        rest = tuple(size - n_layers * (kernel - 1) for size in grid.tile)
        if any(r < f for r, f in zip(rest, grid.focus, strict=True)):
            raise ValueError(
                f"{n_layers} convolutions of {kernel} sites leave {rest} of a tile of {grid.tile}, less than its focus "
                f"{grid.focus}; give a context of at least {math.ceil(n_layers * (kernel - 1) / 2)}, or fewer layers."
            )
        ones, kernels = (1,) * grid.n_axes, (kernel,) * grid.n_axes
        widths = pairwise([n_in] + [n_hidden] * n_layers)
        self.convolutions = nn.ModuleList(Window(a, b, kernels, ones) for a, b in widths)
        self.head = Window(n_hidden if n_layers else n_in, n_hidden, rest, grid.focus)
        self.out = nn.Linear(n_hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See `TileNetwork.forward`."""
        for window in self.convolutions:
            x = silu(window(x))
        energies: Tensor = self.out(silu(self.head(x)).movedim(1, -1))
        return energies.squeeze(-1)


class Equilibrium(TileNetwork):
    """A tile's features at their fixed point, `z = φ(W z + v(x))`, and `e = w·z + λ·(f(z) − z) + b`.

    `v` is linear in the tile, `‖W‖₂ ≤ γ < 1` and `|φ'| ≤ 1`: the map contracts by γ for any tile, so its
    fixed point exists, is unique and smooth. All tiles of a call are found by one Anderson solve with a window for
    each. `λ = (∂f/∂z)ᵀ λ + w` makes the error of the energy quadratic in the residuals. Derivatives of any order come
    from implicit differentiation.

    Args:
        grid: focus and context.
        n_in: values per site.
        n_hidden: features of a tile.
        contraction: γ, in (0, 1).

    Raises:
        ValueError: if γ is not in (0, 1).
    """

    def __init__(self, grid: TileGrid, n_in: int, n_hidden: int, contraction: float = 0.7) -> None:
        super().__init__(grid)
        if not 0.0 < contraction < 1.0:
            raise ValueError(f"contraction is {contraction}; a fixed point is guaranteed for values between 0 and 1.")
        self.contraction = contraction
        self.inject = Window(n_in, n_hidden, grid.tile, grid.focus)
        self.mix = nn.Parameter(nn.init.orthogonal_(torch.empty(n_hidden, n_hidden)))
        self.out = nn.Linear(n_hidden, 1)

    def matrix(self) -> Tensor:
        """`W`, its norm bounded by γ [n_hidden, n_hidden]."""
        return bounded(self.mix, self.contraction)

    def forward(self, x: Tensor) -> Tensor:
        """See `TileNetwork.forward`.

        Raises:
            UnsolvedError: if a fixed point is not reached, as with weights that are not finite.
        """
        v = self.inject(x).movedim(1, -1)
        rows, matrix, readout = v.flatten(0, -2), self.matrix(), self.out.weight[0]
        z, adjoint = equilibrium(rows.detach(), matrix.detach(), readout.detach())

        def solver(f: Map, start: Tensor) -> Tensor:
            segments = Segments(torch.arange(len(start), device=start.device), len(start))
            tol = TOLERANCE[start.dtype]
            return solve_linear(f, start, solver=Anderson(), tol=tol, max_steps=MAX_STEPS, segments=segments).value

        z = fixed_point(cell, solver, z, rows, matrix)
        energies: Tensor = self.out(z).squeeze(-1) + (adjoint * (cell(z, rows, matrix) - z)).sum(-1)
        return energies.reshape(v.shape[:-1])


TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Relative residual of each tile's features and adjoint."""


def cell(z: Tensor, v: Tensor, matrix: Tensor) -> Tensor:
    """`f(z) = φ(W z + v)` [n_rows, n_hidden]."""
    return lipschitz_silu(v + z @ matrix.T)


@torch.no_grad()
def equilibrium(v: Tensor, matrix: Tensor, readout: Tensor) -> tuple[Tensor, Tensor]:
    """`z = f(z)` and `λ = (∂f/∂z)ᵀ λ + w` of every row, each [n_rows, n_hidden].

    Args:
        v: [n_rows, n_hidden].
        matrix: `W` [n_hidden, n_hidden].
        readout: `w` [n_hidden].

    Raises:
        UnsolvedError: if a row does not converge.
    """
    segments = Segments(torch.arange(len(v), device=v.device), len(v))
    tol, n = TOLERANCE[v.dtype], len(v)
    z = solve(
        lambda z: cell(z, v, matrix), cell(torch.zeros_like(v), v, matrix), solver=Anderson(), tol=tol,
        max_steps=MAX_STEPS, segments=segments,
    )  # fmt: skip
    slope = lipschitz_silu_slope(v + z.value @ matrix.T)
    source = readout.expand(n, -1)
    adjoint = solve_linear(
        lambda a: source + (a * slope) @ matrix, source, solver=Anderson(), tol=tol, max_steps=MAX_STEPS,
        segments=segments,
    )  # fmt: skip
    missed = int((~z.converged | ~adjoint.converged).sum())
    if missed:
        raise UnsolvedError(
            f"{missed} of {n} tiles did not reach their fixed point in {MAX_STEPS} steps; are the weights finite, and "
            "the contraction well below 1?"
        )
    return z.value, adjoint.value
