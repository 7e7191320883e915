"""Space cut into focus boxes, and the lists of the atoms in them.

A position has heights `h_a` over the planes of the cell: along a periodic axis `h_a = (s_a − ⌊s_a⌋) H_a` with the
fractional coordinate `s` and the distance `H` of the planes, along an open one the coordinate itself. A box is a range
of heights on each axis. Heights change by no more than an atom moves, so what lies within the cutoff of an atom lies
within the cutoff of it on every axis, in cells of any shape.
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
CHUNK = 1 << 20
"""Atoms worked on at a time where temporary arrays would be large."""
MOST_BINS = 1 << 23
"""Bins of a grid; each takes sixteen bytes, whether there are atoms in it or not."""
TIE = 1e-8
"""Å by which an atom may lie outside of what a tile holds: rounding decides nothing where atoms lie on its faces."""
WHOLE = 1.5
"""An open axis along which the atoms extend over less than this many focus lengths is not cut."""


@dataclass(frozen=True, eq=False)
class TileGrid3D:
    """Boxes of one cell. Each tile is `split` bins wide, so that its surroundings are found without a search.

    Along open axes boxes have multiples of the focus as borders, whatever the atoms do, and the outermost ones are
    endless; a short axis is one endless box. So neither depends on small motions of the atoms.

    Args:
        cell: [3, 3], with unit vectors across the periodic ones for open axes, Å.
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
        """Of the cell, Å³; nan where it is not periodic in three directions."""
        return abs(float(np.linalg.det(self.cell))) if self.pbc.all() else float("nan")

    @cached_property
    def _inverse(self) -> tuple[Floats, Floats]:
        """Of the cell [3, 3], 1/Å, and the distances of its planes [3], Å."""
        inverse = np.asarray(np.linalg.inv(self.cell), np.float64)
        return inverse, np.asarray(1.0 / np.linalg.norm(inverse, axis=0), np.float64)

    def tile(self, flat: Ints) -> Ints:
        """Numbers of tiles along each axis [n, 3]."""
        return np.stack(np.unravel_index(flat, self.shape), -1).astype(np.int64)

    def flat(self, tiles: Ints) -> Ints:
        """One number for each tile, periodic images of one tile having the same."""
        wrapped = np.where(self.pbc, tiles % self.shape, tiles)
        return flat_index(wrapped, self.shape)

    def heights(self, positions: Floats) -> tuple[Floats, Ints]:
        """Heights [n, 3], Å, and the lattice translations that were taken off [n, 3].

        Each coordinate is computed on its own, in one order: an atom has the same heights whatever array it stands in.
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
        """Bin along each axis of each atom [n, 3]."""
        width = self.step / self.split
        found = np.floor(heights / width).astype(np.int64) - np.where(self.pbc, 0, self.first * self.split)
        found[:, ~self.pbc & (self.shape == 1)] = 0
        clipped: Ints = np.clip(found, 0, self.bins - 1)
        return clipped

    def flat_bin(self, positions: Floats) -> Ints:
        """Number of the bin of each atom [n]."""
        return flat_index(self.bin_of(self.heights(positions)[0]), self.bins)

    def bounds(self, tiles: Ints) -> tuple[Floats, Floats]:
        """Lowest and highest heights of tiles [n, 3]; endless ones have infinite bounds, periodic images their own."""
        low = (tiles + np.where(self.pbc, 0, self.first)) * self.step
        high = low + self.step
        low[(tiles == 0) & ~self.pbc] = -np.inf
        high[(tiles == self.shape - 1) & ~self.pbc] = np.inf
        return low, high

    def surroundings(self, context: float) -> tuple[Ints, NDArray[np.bool_]]:
        """Bins [n, 3], relative to a tile's first, that may hold atoms within `context` of it; which are its own."""
        margin = np.ceil((context + TIE) * self.split / self.step).astype(np.int64)
        margin[~self.pbc & (self.shape == 1)] = 0
        offsets = np.indices(tuple(self.split + 2 * margin), np.int64).reshape(3, -1).T - margin
        return offsets, np.asarray(((offsets >= 0) & (offsets < self.split)).all(1))

    def tiles_with(self, heights: Floats, context: float) -> Ints:
        """All tiles that hold one of the atoms in their focus or context [n, 3]; of periodic images, one.

        They are numbered from where the atoms are, so that tiles on both sides of a periodic border lie together.

        Args:
            heights: of the atoms [n_atoms, 3], Å.
            context: Å.
        """
        shift = np.where(self.pbc, 0, self.first)
        # A little more than the tiles hold: heights are rounded.
        low, high = (
            self._clipped(np.floor((heights + side) / self.step).astype(np.int64) - shift)
            for side in (-context - 2 * TIE, context + 2 * TIE)
        )
        # Once around is enough on a periodic axis.
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
    """The grid of a structure: periodic axes divided evenly into `round(H / focus)` boxes.

    Args:
        positions: [n_atoms, 3], Å.
        cell: [3, 3], Å.
        pbc: three booleans.
        focus: Å.
        context: Å.

    Raises:
        ValueError: where there is a single box and it is periodic: it would be its own neighbour; where there are too
            many of them.
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
            if high - low > WHOLE * focus:
                first[axis] = np.floor(low / focus)
                shape[axis] = int(np.floor(high / focus)) - first[axis] + 1
    if pbc.any() and shape.prod() == 1:
        largest = np.floor(heights[pbc].max() / 0.015 - 1e-6) / 100  # a little below where there are two boxes
        raise ValueError(
            f"a focus of {focus} Å leaves the structure a single tile: its cell is "
            f"{', '.join(f'{h:.1f}' for h in heights[pbc])} Å high along the periodic axes, which are divided into "
            f"round(height / focus) boxes. Choose a focus of at most {largest:g} Å, or evaluate it without tiles."
        )
    endless = ~pbc & (shape == 1)
    if np.prod(shape.astype(float)) > MOST_BINS:
        raise ValueError(
            f"a focus of {focus} Å cuts a space of {' x '.join(f'{x:.0f}' for x in shape * step)} Å into "
            f"{np.prod(shape.astype(float)):.1e} tiles, more than {MOST_BINS}; choose a larger one. Is an atom astray?"
        )
    split = np.where(endless, 1, np.maximum(1, np.floor(step / context))).astype(np.int64)
    while np.prod(shape * split) > MOST_BINS and (split > 1).any():
        split = np.maximum(1, split // 2)
    return TileGrid3D(full, pbc, shape, first, step, split)


def frame(cell: Any, pbc: Any) -> tuple[Floats, Floats]:
    """The cell with unit vectors across the periodic axes in place of the others [3, 3], and its heights [3], Å."""
    periodic = np.array(pbc, bool)
    full = np.eye(3)
    if periodic.any():
        full = complete_cell(np.where(periodic[:, None], np.asarray(cell, np.float64), 0.0))
    return full, 1.0 / np.linalg.norm(np.linalg.inv(full), axis=0)


def _extent(positions: Floats, normal: Floats) -> tuple[float, float]:
    """Lowest and highest coordinate along a direction."""
    parts = [positions[k : k + CHUNK] @ normal for k in range(0, len(positions), CHUNK)]
    return min(float(p.min()) for p in parts), max(float(p.max()) for p in parts)


class CellList:
    """The atoms of every bin: `items[start[b] : start[b] + count[b]]`, with room to let atoms in.

    Args:
        grid: the bins.
        positions: [n_atoms, 3], Å.
        spare: free places in each bin, beside half as many as it has atoms; 0 for none at all.
    """

    def __init__(self, grid: TileGrid3D, positions: Floats, spare: int = 0) -> None:
        self.grid, self.spare = grid, spare
        n_bins = int(grid.bins.prod())
        kind = np.uint16 if n_bins <= 1 << 16 else np.int64  # numpy sorts 16-bit keys by counting
        where = np.empty(len(positions), kind)
        for k in range(0, len(positions), CHUNK):
            where[k : k + CHUNK] = grid.flat_bin(positions[k : k + CHUNK])
        self.count: Ints = np.bincount(where, minlength=n_bins).astype(np.int64)
        room = self.count + self.count // 2 + spare if spare else self.count
        self.start: Ints = np.concatenate(([0], np.cumsum(room)))
        order = np.argsort(where, kind="stable").astype(np.int32)
        if not spare:
            self.items = order
            return
        self.items = np.zeros(int(self.start[-1]), np.int32)
        gaps = self.start[:-1] - (np.cumsum(self.count) - self.count)
        for k in range(0, len(order), CHUNK):
            block = order[k : k + CHUNK]
            self.items[gaps[where[block]] + np.arange(k, k + len(block))] = block

    def members(self, bins: Ints) -> Ints:
        """Atoms of some bins, one after another."""
        return self.items[spans(self.start[bins], self.count[bins])].astype(np.int64)

    def has_room(self, bins: Ints) -> bool:
        """Whether an atom can be put into each of the bins, which may be named several times."""
        which, wanted = np.unique(bins, return_counts=True)
        return bool((self.start[which] + self.count[which] + wanted <= self.start[which + 1]).all())

    def renumbered(self, gone: slice, positions: Floats, n_new: int) -> "CellList":
        """A copy without a stretch of atoms, at `positions`, whose followers are counted on from `n_new` new ones."""
        other = copy.copy(self)
        other.items, other.count = self.items.copy(), self.count.copy()
        for atom, b in zip(range(gone.start, gone.stop), self.grid.flat_bin(positions).tolist(), strict=True):
            other.remove(atom, b)
        other.items[other.items >= gone.stop] += n_new - (gone.stop - gone.start)
        return other

    def insert(self, atom: int, b: int) -> None:
        """Put an atom into a bin that is not full."""
        self.items[self.start[b] + self.count[b]] = atom
        self.count[b] += 1

    def remove(self, atom: int, b: int) -> None:
        """Take an atom out of its bin."""
        first, last = self.start[b], self.start[b] + self.count[b] - 1
        place = first + int(np.flatnonzero(self.items[first : last + 1] == atom)[0])
        self.items[place] = self.items[last]
        self.count[b] -= 1


def flat_index(numbers: Ints, shape: Ints) -> Ints:
    """One number for the numbers along each axis [..., 3]."""
    flat: Ints = (numbers[..., 0] * shape[1] + numbers[..., 1]) * shape[2] + numbers[..., 2]
    return flat


def spans(start: Ints, count: Ints) -> Ints:
    """`start[0], start[0] + 1, …` with `count[0]` numbers, then those of the next span."""
    ends = np.cumsum(count)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(start - ends + count, count)
