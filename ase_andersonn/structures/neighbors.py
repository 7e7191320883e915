"""Pairs of atoms closer than a cutoff, each seen from both of its ends.

    d = positions[other] + offset @ cell - positions[center],    |d| < cutoff

vesin finds every pair once; both directions are made from it, so an edge knows its reverse without a search.
`NeighborList` keeps the edges within cutoff + skin and looks for new ones only when some may have come closer.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import vesin
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GRID_CELLS = 5e4
MOST_IMAGES = 1e5
"""Periodic images of an atom within reach, at most: a smaller cell is a mistake, and the list would fill the memory."""
FARTHEST = 1e4
"""Å that the atoms of what is periodic in one or two directions extend along the others at most: a second of search."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges of one structure, sorted by `center`; both directions of every pair are present.

    Args:
        center: int64 [n_edges], atom whose neighbourhood the edge belongs to.
        other: int64 [n_edges], atom at the other end.
        offset: int32 [n_edges, 3], lattice translations added to the other atom's position.
        reverse: int64 [n_edges], index of the same pair seen from the other end.
        vectors: float64 [n_edges, 3], d = positions[other] + offset @ cell - positions[center], Å.
        memo: what has been made of `center`, `other` and `reverse` alone, kept while only `vectors` changes.
    """

    center: Ints
    other: Ints
    offset: NDArray[np.int32]
    reverse: Ints
    vectors: Floats
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.center)

    def chosen(self, inside: Bools) -> "Edges":
        """The edges where `inside` [n_edges] is true, which has to be so for both directions of a pair."""
        kept = np.flatnonzero(inside)
        place = np.cumsum(inside) - 1
        return Edges(
            center=self.center.take(kept),
            other=self.other.take(kept),
            offset=self.offset.take(kept, 0),
            reverse=place.take(self.reverse.take(kept)),
            vectors=self.vectors.take(kept, 0),
        )


@dataclass(frozen=True, eq=False)
class PairCutoffs:
    """A cutoff for each pair of elements.

    Args:
        table: symmetric [n, n], Å, by atomic number; n larger than any atomic number.
    """

    table: Floats

    def extremes(self, numbers: ArrayLike) -> tuple[float, float]:
        """The smallest and the largest cutoff of pairs of these atoms, Å."""
        kinds = np.unique(np.asarray(numbers))
        among = self.table[kinds[:, None], kinds] if len(kinds) else self.table
        return float(among.min()), float(among.max())

    def of(self, numbers: ArrayLike, edges: Edges) -> Floats:
        """The cutoff of each edge [n_edges], Å."""
        z = np.asarray(numbers)
        limits: Floats = self.table[z.take(edges.center), z.take(edges.other)]
        return limits

    def within(self, numbers: ArrayLike, edges: Edges, skin: float = 0.0) -> Edges:
        """The edges shorter than their pair's cutoff + skin."""
        limits = self.of(numbers, edges) + skin
        return edges.chosen(_squares(edges.vectors) < limits * limits)


Cutoff = float | PairCutoffs


def extremes_of(cutoff: Cutoff, numbers: ArrayLike) -> tuple[float, float]:
    """The smallest and the largest cutoff of pairs of these atoms, Å."""
    return cutoff.extremes(numbers) if isinstance(cutoff, PairCutoffs) else (cutoff, cutoff)


def edges_of(numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: Cutoff) -> Edges:
    """As `neighbor_edges`, also for a cutoff of each pair of elements; numbers: [n_atoms], atomic numbers."""
    found = neighbor_edges(positions, cell, pbc, extremes_of(cutoff, numbers)[1])
    return cutoff.within(numbers, found) if isinstance(cutoff, PairCutoffs) else found


def neighbor_edges(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float) -> Edges:
    """All edges shorter than the cutoff, d = positions[other] + offset @ cell - positions[center].

    Args:
        positions: [n_atoms, 3], Å; atoms may lie outside the cell.
        cell: [3, 3], one lattice vector a row, Å; those that are not periodic may be zero.
        pbc: three booleans, or one for all.
        cutoff: Å.

    Raises:
        ValueError: for a cutoff that is not a positive number, a cell that is too small, and atoms too far apart.
    """
    x, h = np.asarray(positions, np.float64).reshape(-1, 3), np.asarray(cell, np.float64)
    periodic: list[bool] = np.broadcast_to(np.asarray(pbc, bool), 3).tolist()
    radius = _search_radius(x, h, np.array(periodic), _positive("cutoff", cutoff))
    if radius > cutoff and not any(periodic):
        first, second = KDTree(x).query_pairs(cutoff, output_type="ndarray").T
        offset = np.zeros((len(first), 3), np.int32)
    else:
        finder = vesin.NeighborList(cutoff=radius, full_list=False)
        first, second, offset = finder.compute(x, h, periodic, "ijS")
    d = x.take(second, 0)
    d -= x.take(first, 0)
    d += offset @ h
    if radius > cutoff:
        near = np.flatnonzero(_squares(d) < cutoff * cutoff)
        first, second, offset, d = first[near], second[near], offset[near], d[near]
    center = np.concatenate((first, second)).view(np.int64)
    order, reverse = _by_center(center, len(x))
    return Edges(
        center=center.take(order),
        other=np.concatenate((second, first)).view(np.int64).take(order),
        offset=np.concatenate((offset, -offset)).take(order, 0),
        reverse=reverse,
        vectors=np.concatenate((d, -d)).take(order, 0),
    )


def _positive(name: str, value: float) -> float:
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value} Å; it has to be a positive number.")
    return float(value)


def _search_radius(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> float:
    """The cutoff, or more where vesin would need a grid with many cells along one direction and few along another.

    vesin (up to 0.6.2 at least) shrinks a grid of more than 1e5 cells evenly, to none at all along the short direction,
    and then divides by zero, which ends the process: a wide sheet, or a molecule one atom of which has flown far off.

    Raises:
        ValueError: for a cell so small that an atom would have more than `MOST_IMAGES` images within the cutoff, and
            for atoms farther apart than `FARTHEST`, for which vesin takes minutes.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.pinv(cell[pbc]), axis=0)
    if np.maximum(2.0 * cutoff / heights, 1.0).prod() > MOST_IMAGES:
        raise ValueError(
            f"the cell is too small: its heights are {np.round(heights, 4).tolist()} Å, and neighbours are sought up "
            f"to {cutoff:g} Å; are its lengths in Å?"
        )
    spread = float(np.linalg.norm(np.ptp(positions, axis=0))) if len(positions) and not pbc.all() else 0.0
    bound = np.where(pbc, np.sqrt(np.einsum("ij,ij->i", cell, cell)), spread)
    if np.maximum(bound / cutoff, 1.0).prod() < GRID_CELLS:
        return cutoff
    across = np.ptp(positions @ np.linalg.svd(cell[pbc])[2][pbc.sum() :].T, axis=0)
    if pbc.any() and across.max(initial=0.0) > FARTHEST:
        raise ValueError(
            f"atoms lie {across.max():.1e} Å apart across what is periodic, more than {FARTHEST:g} Å; check the step "
            "that moved them."
        )
    lengths = np.concatenate((heights, across))
    grid = np.maximum(lengths / cutoff, 1.0)
    if grid.min() * np.cbrt(GRID_CELLS / grid.prod()) > 4.0:  # no direction comes near to losing all of its cells
        return cutoff
    radius = cutoff
    while np.maximum(lengths / radius, 1.0).prod() > GRID_CELLS:
        radius *= 1.1
    return radius


def _squares(vectors: Floats) -> Floats:
    x, y, z = vectors.T
    squares: Floats = x * x + y * y + z * z
    return squares


def _by_center(center: Ints, n_atoms: int) -> tuple[Ints, Ints]:
    """Stable order by center of the pairs followed by the pairs turned round, and the reverse of each sorted edge."""
    # numpy sorts 16-bit keys by counting, in O(n)
    order = np.argsort(center.astype(np.uint16), kind="stable")
    if n_atoms > 1 << 16:
        high = (center.take(order) >> 16).astype(np.uint16)
        order = order.take(np.argsort(high, kind="stable"))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, np.roll(place, len(order) // 2).take(order)
