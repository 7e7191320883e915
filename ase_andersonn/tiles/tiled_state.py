"""Energies of all tiles of one structure, with incremental updates when a few atoms change.

Moving, substituting, inserting or deleting an atom affects the tiles that contain it before or after the change. Cell
lists and energies are changed in place, and the previous values are recorded, so that a change can be rolled back.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .grid import CHUNK_ATOMS, MIN_DIVIDED_EXTENT, CellList, Floats, Ints, TileGrid3D, flat_index

Numbers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Change:
    """Changed atoms of a structure.

    Args:
        atoms: int64 [n], indices, each once.
        positions: new positions [n, 3], Å.
        numbers: new atomic numbers [n].
    """

    atoms: Ints
    positions: Floats
    numbers: Numbers


@dataclass(eq=False)
class Undo:
    """Previous values of everything that a change overwrote."""

    change: Change
    bins: list[tuple[int, int, NDArray[np.int32]]] = field(default_factory=list)
    tiles: list[tuple[Ints, Floats]] = field(default_factory=list)
    energies: list[tuple[Ints, Floats]] = field(default_factory=list)
    total: tuple[float, float] = (0.0, 0.0)


class TiledState:
    """Structure with its cell lists and the energies of its tiles.

    Args:
        grid: the grid of tiles.
        bins: the atoms' bins, with free places.
        atoms: the structure; copied.
        focus: Å.
        context: Å.

    Attributes:
        tile_energies: [n_tiles], eV.
        energies: energies of the atoms [n_atoms], eV.
    """

    def __init__(self, grid: TileGrid3D, bins: CellList, atoms: Atoms, focus: float, context: float) -> None:
        self.grid, self.bins, self.focus, self.context = grid, bins, focus, context
        self.positions, self.numbers = atoms.positions.copy(), atoms.numbers.copy()
        self.cell, self.pbc = atoms.cell.array.copy(), atoms.pbc.copy()
        self.tile_energies: Floats = np.zeros(grid.n_tiles)
        self.energies: Floats = np.zeros(len(atoms))
        self._total = (0.0, 0.0)
        heights = [grid.heights(self.positions[k : k + CHUNK_ATOMS])[0] for k in range(0, len(atoms), CHUNK_ATOMS)]
        self._low = np.min([h.min(0) for h in heights], 0)
        self._high = np.max([h.max(0) for h in heights], 0)

    @property
    def energy(self) -> float:
        """Sum of the tiles' energies, eV."""
        return self._total[0] + self._total[1]

    def set_energies(self, tile_energies: Floats, energies: Floats) -> None:
        """Set the energies of all tiles and of all atoms."""
        self.tile_energies, self.energies = tile_energies, energies
        self._total = (math.fsum(tile_energies), 0.0)

    def difference(self, atoms: Atoms) -> Change | None:
        """Atoms of a structure that differ from the state; None if the cell or the number of atoms differs."""
        if len(atoms) != len(self.positions) or not self.same_cell(atoms):
            return None
        different = (atoms.positions != self.positions).any(1) | (atoms.numbers != self.numbers)
        changed = np.flatnonzero(different)
        return Change(changed, atoms.positions[changed], atoms.numbers[changed])

    def resized(self, atoms: Atoms) -> tuple["TiledState", Ints] | None:
        """State after replacing a contiguous range of atoms by others, and the affected tiles [n, 3].

        The energies of these tiles and of the new atoms are not computed yet. Arrays are copied, as their length
        changes. None if more than that differs.
        """
        if len(atoms) == len(self.positions) or not self.same_cell(atoms):
            return None
        first, last = _common(self.positions, self.numbers, atoms)
        old, new = slice(first, len(self.positions) - last), slice(first, len(atoms) - last)
        gone, come = self.positions[old], atoms.positions[new]
        if self.exceeds_grid(come):
            return None
        other = copy.copy(self)
        other.positions, other.numbers = atoms.positions.copy(), atoms.numbers.copy()
        other.tile_energies = self.tile_energies.copy()
        other.energies = np.concatenate((self.energies[: old.start], np.zeros(len(come)), self.energies[old.stop :]))
        other.bins = self.bins.renumbered(old, gone, len(come))
        places = self.grid.flat_bin(come)
        if not other.bins.has_room(places):
            other.bins = CellList(self.grid, other.positions, other.bins.spare)
        else:
            for atom, place in zip(range(new.start, new.stop), places.tolist(), strict=True):
                other.bins.insert(atom, place)
        heights, _ = self.grid.heights(np.concatenate((gone, come)))
        return other, self.grid.tiles_with(heights, self.context)

    def same_cell(self, atoms: Atoms) -> bool:
        """Whether a structure has the same cell and boundary conditions."""
        return np.array_equal(atoms.cell.array, self.cell) and np.array_equal(atoms.pbc, self.pbc)

    def exceeds_grid(self, positions: Floats) -> bool:
        """Whether atoms at these positions would need another grid."""
        if not len(positions) or self.grid.pbc.all():
            return False
        heights, _ = self.grid.heights(positions)
        low, high = np.minimum(self._low, heights.min(0)), np.maximum(self._high, heights.max(0))
        for axis in np.flatnonzero(~self.grid.pbc):
            if self.grid.shape[axis] == 1:
                outside = high[axis] - low[axis] > MIN_DIVIDED_EXTENT * self.focus
            else:
                ends = np.floor(np.array([low[axis], high[axis]]) / self.focus) - self.grid.first[axis]
                outside = bool(ends[0] < 0 or ends[1] >= self.grid.shape[axis])
            if outside:
                return True
        self._low, self._high = low, high
        return False

    def apply(self, change: Change) -> tuple[Ints, Undo]:
        """Apply a change; returns the tiles to be evaluated again [n, 3] and the values to undo it."""
        before = self.positions[change.atoms]
        undo = Undo(Change(change.atoms, before, self.numbers[change.atoms]), total=self._total)
        heights, _ = self.grid.heights(np.concatenate((before, change.positions)))
        tiles = self.grid.tiles_with(heights, self.context)
        old, new = flat_index(self.grid.bin_of(heights), self.grid.bins).reshape(2, -1)
        moved = np.flatnonzero(old != new)
        self._make_room(new[moved])
        for b in np.unique(np.concatenate((old[moved], new[moved]))).tolist():
            first, count = int(self.bins.start[b]), int(self.bins.count[b])
            undo.bins.append((b, count, self.bins.items[first : first + count].copy()))
        for k in moved.tolist():
            self.bins.remove(int(change.atoms[k]), int(old[k]))
            self.bins.insert(int(change.atoms[k]), int(new[k]))
        self.positions[change.atoms] = change.positions
        self.numbers[change.atoms] = change.numbers
        return tiles, undo

    def empty(self, tiles: Ints) -> NDArray[np.bool_]:
        """Whether the focus of each tile is empty."""
        own = np.stack(np.meshgrid(*map(np.arange, self.grid.split), indexing="ij"), -1).reshape(-1, 3)
        wrapped = np.where(self.grid.pbc, tiles % self.grid.shape, tiles)
        bins = (wrapped * self.grid.split)[:, None] + own
        empty: NDArray[np.bool_] = self.bins.count[flat_index(bins, self.grid.bins)].sum(1) == 0
        return empty

    def update(self, tiles: Ints, tile_energies: Floats, atoms: Ints, energies: Floats, undo: Undo) -> None:
        """Set the energies of some tiles (flat indices) and of their focus atoms."""
        undo.tiles.append((tiles, self.tile_energies[tiles]))
        undo.energies.append((atoms, self.energies[atoms]))
        for value in (tile_energies - self.tile_energies[tiles]).tolist():
            self._add(value)
        self.tile_energies[tiles] = tile_energies
        self.energies[atoms] = energies

    def rollback(self, undo: Undo) -> None:
        """Restore the state before a change."""
        for b, count, items in undo.bins:
            first = int(self.bins.start[b])
            self.bins.items[first : first + count] = items
            self.bins.count[b] = count
        self.positions[undo.change.atoms] = undo.change.positions
        self.numbers[undo.change.atoms] = undo.change.numbers
        for tiles, values in reversed(undo.tiles):
            self.tile_energies[tiles] = values
        for atoms, values in reversed(undo.energies):
            self.energies[atoms] = values
        self._total = undo.total

    def _make_room(self, bins: Ints) -> None:
        if not self.bins.has_room(bins):
            self.bins = CellList(self.grid, self.positions, 2 * max(self.bins.spare, len(bins)))

    def _add(self, value: float) -> None:
        """Add to the total by compensated summation, so that rounding does not accumulate over millions of moves."""
        total, rest = self._total
        both = total + value
        lost = (total - both) + value if abs(total) >= abs(value) else (value - both) + total
        self._total = (both, rest + lost)


def _common(positions: Floats, numbers: Numbers, atoms: Atoms) -> tuple[int, int]:
    """Number of identical atoms at the beginning and at the end of two lists of different length."""
    n = min(len(positions), len(atoms))

    def same(old: slice, new: slice) -> NDArray[np.bool_]:
        there = (positions[old] == atoms.positions[new]).all(1) & (numbers[old] == atoms.numbers[new])
        return np.asarray(there)

    first = int(np.argmin(np.append(same(slice(n), slice(n)), False)))
    rest = n - first
    if not rest:
        return first, 0
    old, new = slice(len(positions) - rest, None), slice(len(atoms) - rest, None)
    return first, int(np.argmin(np.append(same(old, new)[::-1], False)))
