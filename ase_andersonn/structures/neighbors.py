"""Pairs of atoms closer than a cutoff, as directed edges in both directions.

    d = positions[other] + offset @ cell - positions[center],    |d| < cutoff

vesin finds every pair once; both directions are made from it, so that the reverse of an edge is known without a search.
`NeighborList` reuses edges within cutoff + skin and rebuilds them only if some could be missing.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import vesin
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

GRID_CELLS = 5e4
MAX_IMAGES = 1e5
"""Largest number of periodic images of an atom within the cutoff; a smaller cell is an error."""
MAX_EXTENT = 1e4
"""Å; largest extent of partly periodic structures along open directions, which takes a second of search."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges of one structure, sorted by `center`; both directions of every pair are present.

    Args:
        center: int64 [n_edges], central atom.
        other: int64 [n_edges], neighbour.
        offset: int32 [n_edges, 3], lattice translations added to the other atom's position.
        reverse: int64 [n_edges], index of the same pair in the opposite direction.
        vectors: float64 [n_edges, 3], d = positions[other] + offset @ cell - positions[center], Å.
        memo: cache of values derived from `center`, `other` and `reverse`, valid while only `vectors` changes.
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
        """Edges with true `inside` [n_edges], which has to be equal for both directions of a pair."""
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
    """Cutoffs per pair of elements.

    Args:
        table: symmetric [n, n], Å, by atomic number; n is larger than any atomic number.
    """

    table: Floats

    def extremes(self, numbers: ArrayLike) -> tuple[float, float]:
        """The smallest and the largest cutoff of pairs of these atoms, Å."""
        kinds = np.unique(np.asarray(numbers))
        among = self.table[kinds[:, None], kinds] if len(kinds) else self.table
        return float(among.min()), float(among.max())

    def of(self, numbers: ArrayLike, edges: Edges) -> Floats:
        """Cutoff of each edge [n_edges], Å."""
        z = np.asarray(numbers)
        limits: Floats = self.table[z.take(edges.center), z.take(edges.other)]
        return limits

    def within(self, numbers: ArrayLike, edges: Edges, skin: float = 0.0) -> Edges:
        """Edges shorter than their pair's cutoff + skin."""
        limits = self.of(numbers, edges) + skin
        return edges.chosen(_squares(edges.vectors) < limits * limits)


Cutoff = float | PairCutoffs


def extremes_of(cutoff: Cutoff, numbers: ArrayLike) -> tuple[float, float]:
    """The smallest and the largest cutoff of pairs of these atoms, Å."""
    return cutoff.extremes(numbers) if isinstance(cutoff, PairCutoffs) else (cutoff, cutoff)


def edges_of(numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: Cutoff) -> Edges:
    """As `neighbor_edges`, also for cutoffs per pair of elements; numbers: [n_atoms], atomic numbers."""
    found = neighbor_edges(positions, cell, pbc, extremes_of(cutoff, numbers)[1])
    return cutoff.within(numbers, found) if isinstance(cutoff, PairCutoffs) else found


def neighbor_edges(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float) -> Edges:
    """Edges shorter than the cutoff, d = positions[other] + offset @ cell - positions[center].

    Args:
        positions: [n_atoms, 3], Å; atoms may lie outside the cell.
        cell: [3, 3], lattice vectors as rows, Å; vectors that are not periodic may be zero.
        pbc: three booleans, or one for all.
        cutoff: Å.

    Raises:
        ValueError: for a cutoff that is not a positive number, a cell that is too small, and atoms too far apart.
    """
    x, h = np.asarray(positions, np.float64).reshape(-1, 3), np.asarray(cell, np.float64)
    periodic: list[bool] = np.broadcast_to(np.asarray(pbc, bool), 3).tolist()
    radius = _search_radius(x, h, np.array(periodic), _positive("cutoff", cutoff))
    if radius > cutoff and not any(periodic):
        from scipy.spatial import KDTree  # the import takes a third of a second

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
    """Search radius for vesin: the cutoff, or more for very anisotropic grids.

    vesin (at least up to 0.6.2) reduces a grid of more than 1e5 cells uniformly, to zero cells along a short direction,
    and then divides by zero, which kills the process. This happens for a wide layer, or a molecule with one atom far
    away.

    Raises:
        ValueError: if an atom has more than `MAX_IMAGES` images within the cutoff, and for atoms farther apart than
            `MAX_EXTENT`, for which vesin takes minutes.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.pinv(cell[pbc]), axis=0)
    if np.maximum(2.0 * cutoff / heights, 1.0).prod() > MAX_IMAGES:
        raise ValueError(
            f"the cell is too small: its heights are {np.round(heights, 4).tolist()} Å, but neighbours are needed up "
            f"to {cutoff:g} Å; check that its lengths are in Å."
        )
    extent = float(np.linalg.norm(np.ptp(positions, axis=0))) if len(positions) and not pbc.all() else 0.0
    bound = np.where(pbc, np.sqrt(np.einsum("ij,ij->i", cell, cell)), extent)
    if np.maximum(bound / cutoff, 1.0).prod() < GRID_CELLS:
        return cutoff
    across = np.ptp(positions @ np.linalg.svd(cell[pbc])[2][pbc.sum() :].T, axis=0)
    if pbc.any() and across.max(initial=0.0) > MAX_EXTENT:
        raise ValueError(
            f"atoms lie {across.max():.1e} Å apart along open directions, more than {MAX_EXTENT:g} Å; check the step "
            "that moved them."
        )
    lengths = np.concatenate((heights, across))
    grid = np.maximum(lengths / cutoff, 1.0)
    if grid.min() * np.cbrt(GRID_CELLS / grid.prod()) > 4.0:  # no direction is close to zero cells
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
    """Stable order by center of the pairs in both directions, and the reverse of each sorted edge."""
    # numpy sorts 16-bit keys by counting, in O(n)
    order = np.argsort(center.astype(np.uint16), kind="stable")
    if n_atoms > 1 << 16:
        high = (center.take(order) >> 16).astype(np.uint16)
        order = order.take(np.argsort(high, kind="stable"))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, np.roll(place, len(order) // 2).take(order)
