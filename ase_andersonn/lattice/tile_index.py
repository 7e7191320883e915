"""Sites of a tile, and tiles of a site, at a cost proportional to the number of requested tiles or sites."""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from .grid import TileGrid

Ints = NDArray[np.int64]


class TileIndex:
    """Index of the tiles of one grid.

    Args:
        grid: focus, context, boundary conditions.
        sizes: sites along each axis.

    Attributes:
        n_sites: number of sites of the grid; as an index it means "outside", beyond an open edge.
        n_tiles: number of tiles of the grid; as an index it means "no tile".
        n_places: number of sites of a tile.

    Raises:
        ValueError: as for `TileGrid.n_tiles`.
    """

    def __init__(self, grid: TileGrid, sizes: Sequence[int]) -> None:
        self.grid, self.sizes = grid, tuple(sizes)
        self.tile_counts = grid.n_tiles(sizes)
        self.n_sites, self.n_tiles = math.prod(sizes), math.prod(self.tile_counts)
        self.n_places = math.prod(grid.tile)
        # per axis: the coordinates in each tile; the tiles that contain each coordinate, and its place there; -1: none
        self._coordinates: list[Ints] = []
        self._holders: list[Ints] = []
        self._places: list[Ints] = []
        for size, n, f, c, ring in zip(
            self.sizes, self.tile_counts, grid.focus, grid.context, grid.periodic, strict=True
        ):
            site = f * np.arange(n) - c + np.arange(f + 2 * c)[:, None]
            self._coordinates.append(site % size if ring else np.where((site >= 0) & (site < size), site, -1))
            x, reach = np.arange(size), math.ceil(c / f)
            tile = x // f + np.arange(-reach, reach + 1)[:, None]
            place = x + c - tile * f
            inside = (place >= 0) & (place < f + 2 * c) & (ring | ((tile >= 0) & (tile < n)))
            self._holders.append(np.where(inside, tile % n, -1))
            self._places.append(np.where(inside, place, -1))
        self._gaps = any(table.min() < 0 for table in self._coordinates + self._holders)
        self._places_differ = any((table != table[:, :1]).any() for table in self._places)

    def sites_of(self, tiles: Ints) -> Ints:
        """Flat indices of the sites of tiles [n_places, n]; `n_sites` for outside sites."""
        return _joined(self._coordinates, np.unravel_index(tiles, self.tile_counts), self.sizes, self._gaps)

    def tiles_of(self, sites: Ints) -> Ints:
        """Flat indices of the tiles that contain each site [n_holders, n]; padded by `n_tiles`."""
        return _joined(self._holders, np.unravel_index(sites, self.sizes), self.tile_counts, self._gaps)

    def places_of(self, sites: Ints) -> Ints:
        """Place of each site in these tiles [n_holders, n]; `n_places` for no tile. One column if all are equal."""
        chosen = sites if self._places_differ else sites[:1]
        return _joined(self._places, np.unravel_index(chosen, self.sizes), self.grid.tile, self._gaps)

    def focus_sizes(self) -> NDArray[np.float64]:
        """Number of sites in each tile's focus [*tile_counts]; smaller at an open edge."""
        lengths = [
            np.minimum(f, size - f * np.arange(n))
            for size, n, f in zip(self.sizes, self.tile_counts, self.grid.focus, strict=True)
        ]
        return reduce(np.multiply.outer, [length.astype(float) for length in lengths])

    def per_site(self, tiles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value of each site's tile, the one with the site in its focus: [n_tiles] → [n_sites]."""
        values = tiles.reshape(self.tile_counts)
        for axis, (f, size) in enumerate(zip(self.grid.focus, self.sizes, strict=True)):
            values = np.repeat(values, f, axis).take(np.arange(size), axis)
        return values.reshape(-1)

    def independent_sets(self) -> list[Ints]:
        """Partition of the sites into sets without two sites in one tile."""
        sets = [np.zeros((1, 0), int)]
        for size, f, c, ring in zip(self.sizes, self.grid.focus, self.grid.context, self.grid.periodic, strict=True):
            sets = [
                np.concatenate((np.repeat(a, len(b), 0), np.tile(b, len(a))[:, None]), 1)
                for a in sets
                for b in _apart(size, f, c, ring)
            ]
        return [np.asarray(np.ravel_multi_index(tuple(s.T), self.sizes)) for s in sets]


def _joined(tables: Sequence[Ints], coordinates: Sequence[Ints], sizes: Sequence[int], gaps: bool) -> Ints:
    """Flat indices of all combinations of the entries of the axes' tables for some coordinates [k, n].

    For an entry of -1, possible only with `gaps`, the index is `prod(sizes)`.
    """
    axes = [table.take(row, axis=1) for table, row in zip(tables, coordinates, strict=True)]
    flat = axes[0]
    for axis, size in zip(axes[1:], sizes[1:], strict=True):
        flat = (flat[:, None] * size + axis).reshape(-1, flat.shape[1])
    if not gaps:
        return flat
    missing = axes[0] < 0
    for axis in axes[1:]:
        missing = (missing[:, None] | (axis < 0)).reshape(-1, flat.shape[1])
    return np.where(missing, math.prod(sizes), flat)


def _apart(size: int, f: int, c: int, ring: bool) -> list[Ints]:
    """Partition of the coordinates along an axis into sets without two in one tile.

    Sites at the same place of blocks of `2 ⌈c/f⌉ + 1` or more tiles have no tile in common. The axis is therefore
    divided into such blocks, and a set has the same place in every block. Blocks have equal length if some length up to
    twice the least one divides the axis; otherwise a few are longer by a tile, and the last sets are smaller.
    """
    n, least = math.ceil(size / f), 2 * math.ceil(c / f) + 1
    if ring:
        length = next((m for m in range(least, min(2 * least, n) + 1) if n % m == 0), None)
        n_blocks = max(1, n // least) if length is None else n // length
        edges = np.arange(n_blocks + 1) * n // n_blocks
    else:
        edges = np.minimum(np.arange(math.ceil(n / least) + 1) * least, n)
    starts, ends = edges[:-1] * f, np.minimum(edges[1:] * f, size)
    longest = int((ends - starts).max())
    return [(starts + k)[starts + k < ends] for k in range(longest)]
