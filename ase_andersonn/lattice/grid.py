"""Tiles of regular grids in any dimension.

    E = Σ_t e(x[t f − c : t f + f + c]),    t a tile, f its focus, c its context, one network e for all tiles

A tile has `focus` sites and `context` sites on each side along every axis; the foci cover the grid without gaps or
overlaps, so the energy is extensive.

Along a periodic axis the focus has to divide the size of the grid, and a tile must not be larger than the grid, so that
no site is in a tile twice. Along an open axis the grid is padded by zeros: by the context in front, and by the context
and the rest of the last focus behind. An open axis can therefore have any size.

Mills et al., Chem. Sci. 10, 4129 (2019).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TileGrid:
    """Geometry of the tiles on a grid.

    Args:
        focus: sites of a tile's focus, one number per axis.
        context: sites of context on each side, one number per axis.
        periodic: one flag per axis.

    Raises:
        ValueError: for a focus below 1, a negative context, or numbers of axes that differ.
    """

    focus: tuple[int, ...]
    context: tuple[int, ...]
    periodic: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.focus) == len(self.context) == len(self.periodic) > 0:
            raise ValueError(
                f"focus {self.focus}, context {self.context} and periodic {self.periodic} need one entry per axis."
            )
        if min(self.focus) < 1 or min(self.context) < 0:
            raise ValueError(f"focus is {self.focus} and context {self.context}; they are at least 1 and 0 sites.")

    @property
    def n_axes(self) -> int:
        """Dimensions of the grid."""
        return len(self.focus)

    @property
    def tile(self) -> tuple[int, ...]:
        """Sites of a tile along each axis, `f + 2c`."""
        return tuple(f + 2 * c for f, c in zip(self.focus, self.context, strict=True))

    def n_tiles(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Number of tiles along each axis of a grid.

        Args:
            sizes: sites along each axis.

        Raises:
            ValueError: if a periodic axis is shorter than a tile, or the focus does not divide it.
        """
        if len(sizes) != self.n_axes:
            raise ValueError(f"the grid has {len(sizes)} axes, the tiles {self.n_axes}.")
        for axis, (size, f, tile, ring) in enumerate(zip(sizes, self.focus, self.tile, self.periodic, strict=True)):
            if size < 1:
                raise ValueError(f"the grid has {size} sites along axis {axis}; it needs at least one.")
            if ring and size < tile:
                raise ValueError(
                    f"the grid has {size} sites along the periodic axis {axis}, fewer than the {tile} of a tile "
                    f"(focus {f}, context {(tile - f) // 2}); repeat the cell, or use a model with smaller tiles."
                )
            if ring and size % f:
                near = size - size % f
                raise ValueError(
                    f"the grid has {size} sites along the periodic axis {axis}, which the focus of {f} does not "
                    f"divide; take {near if near >= tile else near + f} or {near + f} sites, or an open axis."
                )
        return tuple(math.ceil(size / f) for size, f in zip(sizes, self.focus, strict=True))

    def pad(self, x: Tensor) -> Tensor:
        """Grid padded by its context: `(n_tiles − 1) f + f + 2c` sites per axis.

        Args:
            x: [n_systems, n_in, *sizes].

        Returns:
            [n_systems, n_in, *padded].

        Raises:
            ValueError: as for `n_tiles`.
        """
        n_tiles = self.n_tiles(x.shape[2:])
        for axis, (n, f, c, ring) in enumerate(zip(n_tiles, self.focus, self.context, self.periodic, strict=True)):
            dim, size = axis + 2, x.shape[axis + 2]
            if ring:
                x = torch.cat((x.narrow(dim, size - c, c), x, x.narrow(dim, 0, c)), dim)
            else:
                after = [0, 0] * (x.ndim - 1 - dim)  # torch counts from the last axis
                x = nn.functional.pad(x, (*after, c, c + n * f - size))
        return x

    def gather(self, x: Tensor) -> Tensor:
        """All tiles of a grid [n_systems, *n_tiles, n_in, *tile]; x is [n_systems, n_in, *sizes]."""
        x = self.pad(x)
        for axis, (f, tile) in enumerate(zip(self.focus, self.tile, strict=True)):
            x = x.unfold(axis + 2, tile, f)
        return x.movedim(1, 1 + self.n_axes)

    def slabs(self, padded: Tensor, most: int) -> Iterator[Tensor]:
        """Slices of complete tiles of a padded grid along its first axis, of about `most` tiles each, in order."""
        f, c = self.focus[0], self.context[0]
        counts = [
            (size - 2 * side) // focus
            for size, side, focus in zip(padded.shape[2:], self.context, self.focus, strict=True)
        ]
        rows = max(1, most // max(1, len(padded) * math.prod(counts[1:])))
        for first in range(0, counts[0], rows):
            yield padded.narrow(2, first * f, min(rows, counts[0] - first) * f + 2 * c)
