"""Atoms of a few tiles as one cluster without periodic boundaries, gathered from the bins around them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .grid import FACE_TOLERANCE, CellList, Floats, Ints, TileGrid3D, flat_index, spans

Bools = NDArray[np.bool_]
COMPACT_VOLUME = 1000.0
"""Volume of a cluster, in cubes of the cutoff, above which empty gaps between tiles are removed."""


@dataclass(frozen=True, eq=False)
class Cluster:
    """Tiles and their atoms. An atom of several tiles is in the cluster once; periodic images count as atoms.

    Args:
        atom: int64 [n_members], index of the atom. Rows (atoms with a complete neighbourhood) come first, and among
            these the atoms that are solved for in some tile.
        positions: [n_members, 3], Å; correct relative to atoms within the cutoff; gaps between tiles are shortened.
        n_rows: number of rows.
        n_solved: number of rows that are solved for; the others only send messages before the solve.
        n_tiles: number of tiles.
        tile: int64 [n_pairs], sorted; tile of each pair (tile, row solved for in the tile).
        row: int64 [n_pairs], row of each pair; ascending within a tile, `arange(n_solved)` if no row is in two tiles.
        focus: bool [n_pairs], whether the atom belongs to the tile's focus.
    """

    atom: Ints
    positions: Floats
    n_rows: int
    n_solved: int
    n_tiles: int
    tile: Ints
    row: Ints
    focus: Bools

    @property
    def n_pairs(self) -> int:
        return len(self.row)

    @property
    def shared(self) -> bool:
        """Whether a row is solved for in more than one tile."""
        return self.n_pairs > self.n_solved


def gather(
    grid: TileGrid3D,
    bins: CellList,
    positions: Floats,
    tiles: Ints,
    context: float,
    cutoff: float,
    receptive_field: float,
) -> Cluster:
    """Gather the cluster of some tiles.

    Atoms within `context` of a tile's box on every axis belong to the tile. Those within `context − receptive_field`
    are solved for, as all geometry that enters their equilibrium cell is in the tile; those within `context − cutoff`
    have all their neighbours in the tile.

    Args:
        grid: how space is cut.
        bins: the atoms' bins.
        positions: [n_atoms, 3], Å.
        tiles: indices along each axis [n_tiles, 3]; periodic images are allowed.
        context: Å.
        cutoff: Å.
        receptive_field: radius of the geometry that enters an atom's equilibrium cell, Å; at least the cutoff.
    """
    candidates, tile, member, own = _candidates(grid, bins, tiles, context)
    atom, images = candidates
    heights, wrapped = grid.heights(positions[atom])
    heights += images * (grid.step * grid.shape)
    low, high = grid.bounds(tiles)
    distance = np.zeros(len(member))
    for axis in range(3):
        h = heights[member, axis]
        np.maximum(distance, low[tile, axis] - h, out=distance)
        np.maximum(distance, h - high[tile, axis], out=distance)
    distance -= FACE_TOLERANCE  # atoms on a face: rounding must not differ between a tile and its periodic images
    used = np.zeros(len(atom), bool)
    used[member[distance <= context]] = True
    complete = np.zeros(len(atom), bool)
    complete[member[distance <= context - cutoff]] = True
    solved = own | (distance <= context - receptive_field)
    tile, member, own = tile[solved], member[solved], own[solved]
    rows = np.zeros(len(atom), bool)
    rows[member] = True
    n_solved = int(rows.sum())
    order = member if len(member) == n_solved else np.flatnonzero(rows)
    message_only, outer = np.flatnonzero(complete & ~rows), np.flatnonzero(used & ~rows & ~complete)
    order = np.concatenate((order, message_only, outer))
    place = np.empty(len(atom), np.int64)
    place[order] = np.arange(len(order))
    row = place[member]
    if len(row) > n_solved:
        by_row = np.lexsort((row, tile))
        row, own = row[by_row], own[by_row]
    chosen = atom[order]
    shift = (images[order] - wrapped[order]) @ grid.cell
    places = _packed(positions[chosen] + shift, cutoff)
    return Cluster(chosen, places, n_solved + len(message_only), n_solved, len(tiles), tile, row, own)


def _packed(positions: Floats, cutoff: float) -> Floats:
    """Positions with empty gaps shortened to the cutoff; no atom gains or loses a neighbour.

    Otherwise the neighbour list of tiles far apart would need a large grid.
    """
    if np.prod(np.maximum(np.ptp(positions, axis=0) / cutoff, 1.0)) < COMPACT_VOLUME:
        return positions
    packed = positions.copy()
    for x in packed.T:
        order = np.argsort(x)
        gaps = np.diff(x[order])
        surplus = np.maximum(gaps - 1.01 * cutoff, 0.0)
        x[order[1:]] -= np.cumsum(surplus)
    return packed


def _candidates(
    grid: TileGrid3D, bins: CellList, tiles: Ints, context: float
) -> tuple[tuple[Ints, Ints], Ints, Ints, Bools]:
    """Atoms of all bins around the tiles, each bin once: (atoms, images), and the pairs of tiles and atoms."""
    offsets, own = grid.bin_offsets(context)
    around = (tiles * grid.split)[:, None] + offsets
    image: Ints = np.where(grid.pbc, around // grid.bins, np.int64(0))
    inside = around - image * grid.bins
    there = ((inside >= 0) & (inside < grid.bins)).all(-1)
    tile = np.broadcast_to(np.arange(len(tiles))[:, None], there.shape)[there]
    own = np.broadcast_to(own, there.shape)[there]
    around, image, inside = around[there], image[there], inside[there]
    flat = flat_index(inside, grid.bins)
    low = around.min(0)
    unwrapped = flat_index(around - low, around.max(0) - low + 1)
    _, first, which = np.unique(unwrapped, return_index=True, return_inverse=True)
    count = bins.count[flat[first]]
    images = np.repeat(image[first], count, 0)
    start = np.cumsum(count) - count
    each = count[which]
    member = spans(start[which], each)
    return (bins.members(flat[first]), images), np.repeat(tile, each), member, np.repeat(own, each)
