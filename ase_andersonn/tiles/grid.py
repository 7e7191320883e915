"""Division of space into focus boxes (tiles), and cell lists of the atoms in them.

Positions are expressed by heights `h_a` over the planes of the cell: along a periodic axis `h_a = (s_a − ⌊s_a⌋) H_a`
with fractional coordinate `s` and plane spacing `H`, along an open axis the coordinate itself. A box is a range of
heights on each axis. Heights differ by no more than the distance of two atoms, so atoms within the cutoff of each other
are within the cutoff on every axis, for cells of any shape.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase.geometry import complete_cell
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHUNK_ATOMS = 1 << 20
"""Number of atoms processed at a time, to bound temporary arrays."""
MAX_BINS = 1 << 23
"""Largest number of bins of a grid; each takes 16 bytes, also if it is empty."""
FACE_TOLERANCE = 1e-8
"""Å by which an atom may lie outside of a tile, so that rounding does not decide for atoms on its faces."""
MIN_DIVIDED_EXTENT = 1.5
"""Least extent of the atoms along an open axis, in focus lengths, for the axis to be divided."""


@dataclass(frozen=True, eq=False)
class TileGrid3D:
    """Grid of tiles in one cell. A tile is `split` bins wide, so that the bins around it have fixed offsets.

    Along open axes the boundaries are multiples of the focus and the outermost boxes are unbounded; a short axis is one
    unbounded box. The grid therefore does not depend on small displacements of the atoms.

    Args:
        cell: [3, 3], with unit vectors normal to the periodic axes for open ones, Å.
        pbc: bool [3].
        shape: int64 [3], tiles along each axis.
        first: int64 [3], tile number along open axes at which the grid begins.
        step: [3], width of a tile, Å.
        split: int64 [3], bins along each axis of a tile.
    """

    cell: Floats
    pbc: NDArray[np.bool_]
    shape: Ints
    first: Ints
    step: Floats
    split: Ints

    @property
    def n_tiles(self) -> int:
        return int(self.shape.prod())

    @property
    def bins(self) -> Ints:
        """Bins along each axis [3]."""
        return self.shape * self.split

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³; nan unless it is periodic in three directions."""
        return abs(float(np.linalg.det(self.cell))) if self.pbc.all() else float("nan")

    @cached_property
    def _inverse(self) -> tuple[Floats, Floats]:
        """Inverse of the cell [3, 3], 1/Å, and its plane spacings [3], Å."""
        inverse = np.asarray(np.linalg.inv(self.cell), np.float64)
        return inverse, np.asarray(1.0 / np.linalg.norm(inverse, axis=0), np.float64)

    def tile(self, flat: Ints) -> Ints:
        """Indices of tiles along each axis [n, 3], from flat indices."""
        return np.stack(np.unravel_index(flat, self.shape), -1).astype(np.int64)

    def flat(self, tiles: Ints) -> Ints:
        """Flat indices of tiles; periodic images of a tile have the same index."""
        wrapped = np.where(self.pbc, tiles % self.shape, tiles)
        return flat_index(wrapped, self.shape)

    def heights(self, positions: Floats) -> tuple[Floats, Ints]:
        """Heights [n, 3], Å, and the lattice translations subtracted for them [n, 3].

        The order of operations is fixed, so that an atom has bitwise the same heights in any array.
        """
        inverse, lengths = self._inverse
        x, y, z = positions.T
        heights, images = np.empty_like(positions), np.zeros(positions.shape, np.int64)
        for axis in range(3):
            s = x * inverse[0, axis] + y * inverse[1, axis] + z * inverse[2, axis]
            if self.pbc[axis]:
                below = np.floor(s)
                images[:, axis] = below
                s -= below
            heights[:, axis] = s * lengths[axis]
        return heights, images

    def bin_of(self, heights: Floats) -> Ints:
        """Indices of the bin of each atom along each axis [n, 3]."""
        width = self.step / self.split
        found = np.floor(heights / width).astype(np.int64) - np.where(self.pbc, 0, self.first * self.split)
        found[:, ~self.pbc & (self.shape == 1)] = 0
        clipped: Ints = np.clip(found, 0, self.bins - 1)
        return clipped

    def flat_bin(self, positions: Floats) -> Ints:
        """Flat index of the bin of each atom [n]."""
        return flat_index(self.bin_of(self.heights(positions)[0]), self.bins)

    def bounds(self, tiles: Ints) -> tuple[Floats, Floats]:
        """Lowest and highest heights of tiles [n, 3]; infinite for unbounded tiles, shifted for periodic images."""
        low = (tiles + np.where(self.pbc, 0, self.first)) * self.step
        high = low + self.step
        low[(tiles == 0) & ~self.pbc] = -np.inf
        high[(tiles == self.shape - 1) & ~self.pbc] = np.inf
        return low, high

    def bin_offsets(self, context: float) -> tuple[Ints, NDArray[np.bool_]]:
        """Offsets [n, 3] of the bins within `context` of a tile, from its first bin; whether they are in the tile."""
        margin = np.ceil((context + FACE_TOLERANCE) * self.split / self.step).astype(np.int64)
        margin[~self.pbc & (self.shape == 1)] = 0
        offsets = np.indices(tuple(self.split + 2 * margin), np.int64).reshape(3, -1).T - margin
        return offsets, np.asarray(((offsets >= 0) & (offsets < self.split)).all(1))

    def tiles_with(self, heights: Floats, context: float) -> Ints:
        """Tiles with any of the atoms in focus or context [n, 3]; each set of periodic images once.

        Indices are unwrapped around the atoms, so that tiles on both sides of a periodic boundary are contiguous.

        Args:
            heights: heights of the atoms [n_atoms, 3], Å.
            context: Å.
        """
        shift = np.where(self.pbc, 0, self.first)
        # Slightly more than the context, as heights are rounded.
        low, high = (
            self._clipped(np.floor((heights + side) / self.step).astype(np.int64) - shift)
            for side in (-context - 2 * FACE_TOLERANCE, context + 2 * FACE_TOLERANCE)
        )
        # At most one period along a periodic axis.
        count = np.where(self.pbc, np.minimum(high - low + 1, self.shape), high - low + 1)
        _, first = np.unique(np.concatenate((low, count), 1), axis=0, return_index=True)
        low, count = low[np.sort(first)], count[np.sort(first)]
        each = count.prod(1)
        atom = np.repeat(np.arange(len(each)), each)
        place, width = spans(np.zeros_like(each), each), count[atom]
        rest, last = np.divmod(place, width[:, 2])
        tiles: Ints = low[atom] + np.stack((*np.divmod(rest, width[:, 1]), last), -1)
        _, one_each = np.unique(self.flat(tiles), return_index=True)
        return tiles[np.sort(one_each)]

    def _clipped(self, tiles: Ints) -> Ints:
        tiles = np.where(~self.pbc & (self.shape == 1), 0, tiles)
        return np.where(self.pbc, tiles, np.clip(tiles, 0, self.shape - 1))


def cut(positions: Floats, cell: Any, pbc: Any, focus: float, context: float) -> TileGrid3D:
    """Grid of a structure: periodic axes are divided evenly into `round(H / focus)` boxes.

    Args:
        positions: [n_atoms, 3], Å.
        cell: [3, 3], Å.
        pbc: three booleans.
        focus: Å.
        context: Å.

    Raises:
        ValueError: for a single periodic box, which would be its own neighbour, and for too many boxes.
    """
    pbc = np.array(pbc, bool)
    full, heights = frame(cell, pbc)
    shape, first, step = np.ones(3, np.int64), np.zeros(3, np.int64), heights.copy()
    for axis in range(3):
        if pbc[axis]:
            shape[axis] = max(1, round(heights[axis] / focus))
            step[axis] = heights[axis] / shape[axis]
        else:
            step[axis] = focus
            low, high = _extent(positions, np.linalg.inv(full)[:, axis] * heights[axis])
            if high - low > MIN_DIVIDED_EXTENT * focus:
                first[axis] = np.floor(low / focus)
                shape[axis] = int(np.floor(high / focus)) - first[axis] + 1
    if pbc.any() and shape.prod() == 1:
        largest = np.floor(heights[pbc].max() / 0.015 - 1e-6) / 100  # slightly below the limit for two boxes
        raise ValueError(
            f"a focus of {focus} Å gives a single tile: the cell is "
            f"{', '.join(f'{h:.1f}' for h in heights[pbc])} Å high along the periodic axes, which are divided into "
            f"round(height / focus) boxes. Choose a focus of at most {largest:g} Å, or evaluate without tiles."
        )
    endless = ~pbc & (shape == 1)
    if np.prod(shape.astype(float)) > MAX_BINS:
        raise ValueError(
            f"a focus of {focus} Å cuts a space of {' x '.join(f'{x:.0f}' for x in shape * step)} Å into "
            f"{np.prod(shape.astype(float)):.1e} tiles, more than {MAX_BINS}; choose a larger "
            "focus, and check for atoms far from the others."
        )
    split = np.where(endless, 1, np.maximum(1, np.floor(step / context))).astype(np.int64)
    while np.prod(shape * split) > MAX_BINS and (split > 1).any():
        split = np.maximum(1, split // 2)
    return TileGrid3D(full, pbc, shape, first, step, split)


def frame(cell: Any, pbc: Any) -> tuple[Floats, Floats]:
    """Cell with unit vectors normal to the periodic axes for open ones [3, 3], and its heights [3], Å."""
    periodic = np.array(pbc, bool)
    full = np.eye(3)
    if periodic.any():
        full = complete_cell(np.where(periodic[:, None], np.asarray(cell, np.float64), 0.0))
    return full, 1.0 / np.linalg.norm(np.linalg.inv(full), axis=0)


def _extent(positions: Floats, normal: Floats) -> tuple[float, float]:
    """Lowest and highest coordinate of the atoms along a direction, Å."""
    parts = [positions[k : k + CHUNK_ATOMS] @ normal for k in range(0, len(positions), CHUNK_ATOMS)]
    return min(float(p.min()) for p in parts), max(float(p.max()) for p in parts)


class CellList:
    """Atoms of every bin, `items[start[b] : start[b] + count[b]]`, with free places for insertions.

    Args:
        grid: the bins.
        positions: [n_atoms, 3], Å.
        spare: free places in each bin, in addition to half its number of atoms; 0 for no free places.
    """

    def __init__(self, grid: TileGrid3D, positions: Floats, spare: int = 0) -> None:
        self.grid, self.spare = grid, spare
        n_bins = int(grid.bins.prod())
        kind = np.uint16 if n_bins <= 1 << 16 else np.int64  # numpy sorts 16-bit keys by counting
        where = np.empty(len(positions), kind)
        for k in range(0, len(positions), CHUNK_ATOMS):
            where[k : k + CHUNK_ATOMS] = grid.flat_bin(positions[k : k + CHUNK_ATOMS])
        self.count: Ints = np.bincount(where, minlength=n_bins).astype(np.int64)
        room = self.count + self.count // 2 + spare if spare else self.count
        self.start: Ints = np.concatenate(([0], np.cumsum(room)))
        order = np.argsort(where, kind="stable").astype(np.int32)
        if not spare:
            self.items = order
            return
        self.items = np.zeros(int(self.start[-1]), np.int32)
        gaps = self.start[:-1] - (np.cumsum(self.count) - self.count)
        for k in range(0, len(order), CHUNK_ATOMS):
            block = order[k : k + CHUNK_ATOMS]
            self.items[gaps[where[block]] + np.arange(k, k + len(block))] = block

    def members(self, bins: Ints) -> Ints:
        """Atoms of some bins, concatenated."""
        return self.items[spans(self.start[bins], self.count[bins])].astype(np.int64)

    def has_room(self, bins: Ints) -> bool:
        """Whether one more atom fits into the bin for each time that the bin is listed."""
        which, wanted = np.unique(bins, return_counts=True)
        return bool((self.start[which] + self.count[which] + wanted <= self.start[which + 1]).all())

    def renumbered(self, gone: slice, positions: Floats, n_new: int) -> "CellList":
        """Copy with the atoms `gone` (at `positions`) deleted and later indices shifted for `n_new` insertions."""
        other = copy.copy(self)
        other.items, other.count = self.items.copy(), self.count.copy()
        for atom, b in zip(range(gone.start, gone.stop), self.grid.flat_bin(positions).tolist(), strict=True):
            other.remove(atom, b)
        other.items[other.items >= gone.stop] += n_new - (gone.stop - gone.start)
        return other

    def insert(self, atom: int, b: int) -> None:
        """Insert an atom into a bin that is not full."""
        self.items[self.start[b] + self.count[b]] = atom
        self.count[b] += 1

    def remove(self, atom: int, b: int) -> None:
        """Remove an atom from its bin."""
        first, last = self.start[b], self.start[b] + self.count[b] - 1
        place = first + int(np.flatnonzero(self.items[first : last + 1] == atom)[0])
        self.items[place] = self.items[last]
        self.count[b] -= 1


def flat_index(numbers: Ints, shape: Ints) -> Ints:
    """Flat index of indices along each axis [..., 3]."""
    flat: Ints = (numbers[..., 0] * shape[1] + numbers[..., 1]) * shape[2] + numbers[..., 2]
    return flat


def spans(start: Ints, count: Ints) -> Ints:
    """Concatenated ranges `start[k], …, start[k] + count[k] − 1`."""
    ends = np.cumsum(count)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(start - ends + count, count)
