"""Verlet neighbour list with a skin, reused while atoms move."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .neighbors import Bools, Cutoff, Edges, Floats, Ints, PairCutoffs, _positive, _squares, extremes_of, neighbor_edges


class NeighborList:
    """Neighbour list of a trajectory: edges within cutoff + skin are reused until an edge could be missed.

    Let F be the linear map from the old to the new lattice, and u the displacement of an atom apart from it and from
    lattice translations. No missing edge can be shorter than the cutoff while

        2 max |u| <= sigma_min(F) (cutoff + skin) - cutoff,

    with the smallest singular value sigma_min; with several cutoffs the smallest and the largest are used. In a fixed
    cell this is the usual criterion max |u| <= skin / 2. Copies and pickles rebuild the list.

    Args:
        cutoff: Å.
        skin: Å; 0 to rebuild the list whenever an atom has moved.

    Attributes:
        updates: number of calls of `update`.
        rebuilds: number of calls that rebuilt the list.
    """

    def __init__(self, cutoff: Cutoff, skin: float = 0.5) -> None:
        self.cutoff = cutoff if isinstance(cutoff, PairCutoffs) else _positive("cutoff", cutoff)
        self.skin = 0.0 if skin == 0.0 else _positive("skin", skin)
        self.updates = 0
        self.rebuilds = 0
        self._kept: _ListState | None = None

    def reset(self) -> None:
        """Discard the edges; the next update rebuilds the list."""
        self._kept = None

    def count_rebuild(self) -> None:
        """Count a rebuild outside of this class."""
        self.updates += 1
        self.rebuilds += 1

    def update(self, numbers: ArrayLike, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> Edges:
        """Edges with |d| < cutoff of the current structure; arguments as in `neighbor_edges`.

        The same index arrays are returned until an edge crosses the cutoff: do not modify them.
        """
        now = _Structure(
            np.array(numbers),
            np.array(positions, np.float64).reshape(-1, 3),
            np.array(cell, np.float64).reshape(3, 3),
            np.broadcast_to(np.asarray(pbc, bool), 3).copy(),
        )
        self.updates += 1
        if self._kept is None or not self._kept.advance(now, self.skin):
            self.rebuilds += 1
            largest = extremes_of(self.cutoff, now.numbers)[1]
            found = neighbor_edges(now.positions, now.cell, now.pbc, largest + self.skin)
            if isinstance(self.cutoff, PairCutoffs):
                found = self.cutoff.within(now.numbers, found, self.skin)
            self._kept = _ListState(now, found, self.cutoff)
        return self._kept.within()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class _Structure(NamedTuple):
    numbers: NDArray[Any]
    positions: Floats
    cell: Floats
    pbc: Bools


class _ListState:
    """Edges within cutoff + skin, the structure of the last rebuild, and its current positions."""

    def __init__(self, structure: _Structure, edges: Edges, cutoff: Cutoff) -> None:
        self.built = structure
        self.extremes = extremes_of(cutoff, structure.numbers)
        limits = cutoff.of(structure.numbers, edges) if isinstance(cutoff, PairCutoffs) else np.float64(cutoff)
        self.limits = limits * limits
        self.edges = edges  # offsets at the last rebuild
        self.offset = edges.offset  # current offsets
        self.images = np.zeros((len(structure.numbers), 3), np.int32)  # lattice translations an atom was moved by
        self.positions = structure.positions  # without these translations
        self.cell = structure.cell
        self.shift = edges.offset @ structure.cell
        # Reused, as page faults of new arrays of this size cost more than the arithmetic.
        self.vectors = np.empty_like(edges.vectors)
        self.scratch = np.empty_like(edges.vectors)
        self.inside: Bools | None = None
        self.chosen: Ints = np.empty(0, np.int64)
        self.last = edges

    def advance(self, now: _Structure, skin: float) -> bool:
        """Update to the current structure; False if an edge could be missed."""
        built, cell = self.built, now.cell
        if not (np.array_equal(now.numbers, built.numbers) and np.array_equal(now.pbc, built.pbc)):
            return False
        reference, slack = built.positions, skin
        if not np.array_equal(cell, built.cell):
            deformation = _deformation(built.cell, cell, now.pbc)
            reference = reference @ deformation
            shrunk = float(np.linalg.svd(deformation, compute_uv=False)[-1])
            slack = min(shrunk * (cutoff + skin) - cutoff for cutoff in self.extremes)
        images = self.images
        positions = now.positions - images @ cell
        moved = positions - reference
        if not _at_most(moved, slack / 2):
            jumps = _lattice_jumps(moved, cell, now.pbc)
            back = jumps @ cell
            if not jumps.any() or not _at_most(moved - back, slack / 2):
                return False
            self.images, positions = images + jumps, positions - back
            center, other = self.edges.center, self.edges.other
            self.offset = self.edges.offset + self.images.take(center, 0) - self.images.take(other, 0)
            self.last = replace(self.last, offset=self.offset.take(self.chosen, 0))
        if not np.array_equal(cell, self.cell):
            self.cell, self.shift = cell, self.edges.offset @ cell
        self.positions = positions
        return True

    def within(self) -> Edges:
        """Edges shorter than the cutoff."""
        edges, vectors, scratch = self.edges, self.vectors, self.scratch
        # any mode but "raise" writes into `out` directly
        self.positions.take(edges.other, 0, out=vectors, mode="clip")
        self.positions.take(edges.center, 0, out=scratch, mode="clip")
        vectors -= scratch
        vectors += self.shift
        inside = _squares(vectors) < self.limits
        if self.inside is not None and np.array_equal(inside, self.inside):
            self.last = replace(self.last, vectors=vectors.take(self.chosen, 0))
            return self.last
        self.inside, self.chosen = inside, np.flatnonzero(inside)
        self.last = replace(edges, offset=self.offset, vectors=vectors).chosen(inside)
        return self.last


def _at_most(vectors: Floats, length: float) -> bool:
    """Whether no vector is longer than a length."""
    return length >= 0.0 and float(_squares(vectors).max(initial=0.0)) <= length * length


def _lattice_jumps(moved: Floats, cell: Floats, pbc: Bools) -> NDArray[np.int32]:
    """Lattice translation nearest to each displacement, along periodic vectors only.

    Rounding of fractional coordinates is exact for displacements below half the cell's smallest height; for larger
    ones, or in a flat cell, the result only affects whether the list is rebuilt.
    """
    jumps = np.zeros(moved.shape, np.int32)
    jumps[:, pbc] = np.rint(moved @ np.linalg.pinv(cell[pbc]))
    return jumps


def _deformation(old: Floats, new: Floats, pbc: Bools) -> Floats:
    """F with old[pbc] @ F = new[pbc], the identity perpendicular to periodic vectors; x_new = x_old @ F."""
    deformation: Floats = np.eye(3) + np.linalg.pinv(old[pbc]) @ (new[pbc] - old[pbc])
    return deformation
