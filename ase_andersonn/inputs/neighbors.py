"""Pairs of atoms closer than a cutoff, each seen from both of its ends.

    d = positions[other] + offset @ cell - positions[center],    |d| < cutoff

vesin finds every pair once; both directions are made from it, so an edge knows its reverse without a search.
`NeighborList` keeps the pairs within cutoff + skin and looks for new ones only when some may have come closer.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import vesin
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges of one structure, sorted by `center`; both directions of every pair are present.

    Args:
        center: int64 [n_edges], atom whose neighbourhood the edge belongs to.
        other: int64 [n_edges], atom at the other end.
        offset: int32 [n_edges, 3], lattice translations added to the other atom's position.
        reverse: int64 [n_edges], index of the same pair seen from the other end.
        vectors: float64 [n_edges, 3], d = positions[other] + offset @ cell - positions[center], Å.
    """

    center: Ints
    other: Ints
    offset: NDArray[np.int32]
    reverse: Ints
    vectors: Floats

    def __len__(self) -> int:
        return len(self.center)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Every pair once (first, second, offset [n_pairs, 3]), and how the directed edges are made of them.

    Directed edge e is pair ``order[e]``, or pair ``order[e] - n_pairs`` turned round.
    """

    first: Ints
    second: Ints
    offset: NDArray[np.int32]
    order: Ints
    reverse: Ints


def neighbor_edges(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float) -> Edges:
    """All edges shorter than the cutoff, d = positions[other] + offset @ cell - positions[center].

    Args:
        positions: [n_atoms, 3], Å; atoms may lie outside the cell.
        cell: [3, 3], one lattice vector a row, Å; those that are not periodic may be zero.
        pbc: three booleans, or one for all.
        cutoff: Å.

    Raises:
        ValueError: for a cutoff that is not a positive number.
    """
    x, h, periodic = _structure(positions, cell, pbc)
    pairs = _find_pairs(x, h, periodic, _positive("cutoff", cutoff))
    d = _pair_vectors(pairs, x, pairs.offset @ h)
    return _both_directions(pairs, d)


class NeighborList:
    """Edges along a trajectory: the pairs within cutoff + skin are kept until one may have been missed.

    With F the map that takes the old lattice to the new one, and u the motion of an atom besides it (whole lattice
    translations left out), a pair that was not kept cannot have come within the cutoff while

        2 max |u| <= sigma_min(F) (cutoff + skin) - cutoff

    which is the usual max |u| <= skin / 2 in a fixed cell, and lets small strains pass.

    Args:
        cutoff: Å.
        skin: Å; 0 makes a new list at every update that moves an atom.

    Attributes:
        updates: calls of `update`.
        rebuilds: those that looked for pairs anew.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        self.cutoff = _positive("cutoff", cutoff)
        self.skin = float(skin)
        if not (self.skin >= 0.0 and math.isfinite(self.skin)):
            raise ValueError(f"skin is {skin} Å; it has to be a number >= 0.")
        self.updates = 0
        self.rebuilds = 0
        self._kept: _Kept | None = None

    def reset(self) -> None:
        """Forget the kept pairs; the next update finds them anew."""
        self._kept = None

    def update(self, numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> Edges:
        """The edges with |d| < cutoff of the structure as it is now; arguments as in `neighbor_edges`."""
        x, h, periodic = _structure(positions, cell, pbc)
        species = np.asarray(numbers)
        self.updates += 1
        unwrapped = None if self._kept is None else self._kept.follow(species, x, h, periodic, self.cutoff, self.skin)
        if self._kept is None or unwrapped is None:
            self.rebuilds += 1
            pairs = _find_pairs(x, h, periodic, self.cutoff + self.skin)
            self._kept = _Kept(pairs, species.copy(), x.copy(), h.copy(), periodic.copy())
            unwrapped = x
        return self._kept.edges(unwrapped, self.cutoff)


class _Kept:
    """Pairs within cutoff + skin, and the structure they were found for."""

    def __init__(self, pairs: _Pairs, numbers: NDArray[Any], positions: Floats, cell: Floats, pbc: Bools) -> None:
        self.pairs = pairs
        self.offset = pairs.offset
        self.numbers = numbers
        self.positions = positions
        self.cell = cell
        self.pbc = pbc
        self.cell_now = cell
        self.shift = pairs.offset @ cell
        self.images = np.zeros((len(numbers), 3), np.int32)

    def follow(
        self, numbers: NDArray[Any], positions: Floats, cell: Floats, pbc: Bools, cutoff: float, skin: float
    ) -> Floats | None:
        """Positions with lattice jumps since the build undone; None where a pair could have been missed."""
        if not (np.array_equal(numbers, self.numbers) and np.array_equal(pbc, self.pbc)):
            return None
        reference, slack = self.positions, skin
        if not np.array_equal(cell, self.cell):
            deformation = _deformation(self.cell, cell, pbc)
            if deformation is None:
                return None
            reference = reference @ deformation
            slack = float(np.linalg.svd(deformation, compute_uv=False)[-1]) * (cutoff + skin) - cutoff
        unwrapped = positions - self.images @ cell
        moved = unwrapped - reference
        if not _within(moved, slack):
            jumps = _lattice_jumps(moved, cell, pbc)
            if not jumps.any() or not _within(moved - jumps @ cell, slack):
                return None
            self.images = self.images + jumps
            unwrapped = unwrapped - jumps @ cell
            images, pairs = self.images, self.pairs
            self.offset = pairs.offset + images[pairs.first] - images[pairs.second]
        if not np.array_equal(cell, self.cell_now):
            self.cell_now, self.shift = cell.copy(), self.pairs.offset @ cell
        return unwrapped

    def edges(self, unwrapped: Floats, cutoff: float) -> Edges:
        """The edges shorter than the cutoff."""
        d = _pair_vectors(self.pairs, unwrapped, self.shift)
        near = np.einsum("ij,ij->i", d, d) < cutoff * cutoff
        pairs = self.pairs
        chosen = np.flatnonzero(near)
        order, reverse = _directed(pairs.first[chosen], pairs.second[chosen], len(unwrapped))
        return _both_directions(
            _Pairs(pairs.first[chosen], pairs.second[chosen], self.offset[chosen], order, reverse), d[chosen]
        )


def _structure(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> tuple[Floats, Floats, Bools]:
    x = np.asarray(positions, np.float64).reshape(-1, 3)
    h = np.asarray(cell, np.float64).reshape(3, 3)
    return x, h, np.broadcast_to(np.asarray(pbc, bool), 3)


def _positive(name: str, value: float) -> float:
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value} Å; it has to be a positive number.")
    return float(value)


def _find_pairs(positions: Floats, cell: Floats, pbc: Bools, cutoff: float) -> _Pairs:
    finder = vesin.NeighborList(cutoff=cutoff, full_list=False)
    first, second, offset = finder.compute(positions, cell, pbc.tolist(), "ijS")
    first, second = first.astype(np.int64), second.astype(np.int64)
    order, reverse = _directed(first, second, len(positions))
    return _Pairs(first, second, offset.astype(np.int32), order, reverse)


def _directed(first: Ints, second: Ints, n_atoms: int) -> tuple[Ints, Ints]:
    """Order that sorts the edges (first -> second, then second -> first) by center, and their reverse."""
    n_pairs = len(first)
    order = _stable_order(np.concatenate((first, second)), n_atoms)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    reverse = np.concatenate((place[n_pairs:], place[:n_pairs]))[order]
    return order, reverse


def _stable_order(keys: Ints, n: int) -> Ints:
    """Stable order of keys in range(n); numpy sorts 16-bit keys by counting, in O(n)."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if n > 1 << 16:
        high = (keys[order] >> 16).astype(np.uint16)
        order = order[np.argsort(high, kind="stable")]
    return order


def _pair_vectors(pairs: _Pairs, positions: Floats, shift: Floats) -> Floats:
    d: Floats = positions.take(pairs.second, 0)
    d -= positions.take(pairs.first, 0)
    d += shift
    return d


def _both_directions(pairs: _Pairs, d: Floats) -> Edges:
    first, second, offset = pairs.first, pairs.second, pairs.offset
    order = pairs.order
    return Edges(
        center=np.concatenate((first, second)).take(order),
        other=np.concatenate((second, first)).take(order),
        offset=np.concatenate((offset, -offset)).take(order, 0),
        reverse=pairs.reverse,
        vectors=np.concatenate((d, -d)).take(order, 0),
    )


def _within(moved: Floats, slack: float) -> bool:
    if slack < 0.0:
        return False
    return len(moved) == 0 or 4.0 * float(np.einsum("ij,ij->i", moved, moved).max()) <= slack * slack


def _lattice_jumps(moved: Floats, cell: Floats, pbc: Bools) -> NDArray[np.int32]:
    """The lattice translation nearest to each displacement, along periodic vectors only."""
    jumps = np.zeros(moved.shape, np.int32)
    if pbc.any():
        jumps[:, pbc] = np.rint(moved @ np.linalg.pinv(cell[pbc]))
    return jumps


def _deformation(old: Floats, new: Floats, pbc: Bools) -> Floats | None:
    """F with old[pbc] @ F = new[pbc], the identity across them; None where it is not an invertible map."""
    if not pbc.any():
        return np.eye(3)
    a, b = old[pbc], new[pbc]
    deformation: Floats = np.eye(3) + np.linalg.pinv(a) @ (b - a)
    return deformation if np.allclose(a @ deformation, b, rtol=1e-10, atol=1e-10) else None
