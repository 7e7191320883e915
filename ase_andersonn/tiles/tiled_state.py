"""The energies of all tiles of one structure, and how they follow when a few atoms change.

Moving, changing, adding or removing an atom concerns the tiles that hold it, before or after. Lists of atoms, energies
of tiles and of atoms are changed in place, and what they were is noted down, so that a change can be taken back.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .grid import CHUNK, WHOLE, CellList, Floats, Ints, TileGrid3D, flat_index

Numbers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Change:
    """Atoms that are not what they were.

    Args:
        atoms: int64 [n], indices, each once.
        positions: [n, 3], Å, as they are now.
        numbers: [n], atomic numbers as they are now.
    """

    atoms: Ints
    positions: Floats
    numbers: Numbers


@dataclass(eq=False)
class Undo:
    """What was before a change."""

    change: Change
    bins: list[tuple[int, int, NDArray[np.int32]]] = field(default_factory=list)
    tiles: list[tuple[Ints, Floats]] = field(default_factory=list)
    energies: list[tuple[Ints, Floats]] = field(default_factory=list)
    total: tuple[float, float] = (0.0, 0.0)


class TiledState:
    """A structure with the energies of its tiles.

    Args:
        grid: how space is cut.
        bins: the atoms' bins, with room for more.
        atoms: the structure; copied.
        focus: Å.
        context: Å.

    Attributes:
        tile_energies: [n_tiles], eV.
        energies: of the atoms [n_atoms], eV.
    """

    def __init__(self, grid: TileGrid3D, bins: CellList, atoms: Atoms, focus: float, context: float) -> None:
        self.grid, self.bins, self.focus, self.context = grid, bins, focus, context
        self.positions, self.numbers = atoms.positions.copy(), atoms.numbers.copy()
        self.cell, self.pbc = atoms.cell.array.copy(), atoms.pbc.copy()
        self.tile_energies: Floats = np.zeros(grid.n_tiles)
        self.energies: Floats = np.zeros(len(atoms))
        self._total = (0.0, 0.0)
        heights = [grid.heights(self.positions[k : k + CHUNK])[0] for k in range(0, len(atoms), CHUNK)]
        self._low = np.min([h.min(0) for h in heights], 0)
        self._high = np.max([h.max(0) for h in heights], 0)

    @property
    def energy(self) -> float:
        """The sum of the tiles' energies, eV."""
        return self._total[0] + self._total[1]

    def set_energies(self, tile_energies: Floats, energies: Floats) -> None:
        """Energies of all tiles and of all atoms."""
        self.tile_energies, self.energies = tile_energies, energies
        self._total = (math.fsum(tile_energies), 0.0)

    def difference(self, atoms: Atoms) -> Change | None:
        """The atoms of a structure that are not as they are here; None where more than atoms is different."""
        if len(atoms) != len(self.positions) or not self.same_cell(atoms):
            return None
        different = (atoms.positions != self.positions).any(1) | (atoms.numbers != self.numbers)
        changed = np.flatnonzero(different)
        return Change(changed, atoms.positions[changed], atoms.numbers[changed])

    def resized(self, atoms: Atoms) -> tuple["TiledState", Ints] | None:
        """This with a stretch of atoms taken out and others put in their place; the tiles concerned [n, 3].

        The energies of these tiles and of the new atoms are still to be found. Arrays are copied, as `Atoms` does when
        its length changes. None where more is different.
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
        """Whether cell and boundary conditions are those of a structure."""
        return np.array_equal(atoms.cell.array, self.cell) and np.array_equal(atoms.pbc, self.pbc)

    def exceeds_grid(self, positions: Floats) -> bool:
        """Whether space would be cut otherwise with atoms at these positions."""
        if not len(positions) or self.grid.pbc.all():
            return False
        heights, _ = self.grid.heights(positions)
        low, high = np.minimum(self._low, heights.min(0)), np.maximum(self._high, heights.max(0))
        for axis in np.flatnonzero(~self.grid.pbc):
            if self.grid.shape[axis] == 1:
                outside = high[axis] - low[axis] > WHOLE * self.focus
            else:
                ends = np.floor(np.array([low[axis], high[axis]]) / self.focus) - self.grid.first[axis]
                outside = bool(ends[0] < 0 or ends[1] >= self.grid.shape[axis])
            if outside:
                return True
        self._low, self._high = low, high
        return False

    def apply(self, change: Change) -> tuple[Ints, Undo]:
        """Make a change; the tiles whose energies have to be found anew [n, 3], and how to go back."""
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
        """Which tiles have no atom in their focus."""
        own = np.stack(np.meshgrid(*map(np.arange, self.grid.split), indexing="ij"), -1).reshape(-1, 3)
        wrapped = np.where(self.grid.pbc, tiles % self.grid.shape, tiles)
        bins = (wrapped * self.grid.split)[:, None] + own
        empty: NDArray[np.bool_] = self.bins.count[flat_index(bins, self.grid.bins)].sum(1) == 0
        return empty

    def update(self, tiles: Ints, tile_energies: Floats, atoms: Ints, energies: Floats, undo: Undo) -> None:
        """Set energies of some tiles (flat numbers) and of their focus atoms."""
        undo.tiles.append((tiles, self.tile_energies[tiles]))
        undo.energies.append((atoms, self.energies[atoms]))
        for value in (tile_energies - self.tile_energies[tiles]).tolist():
            self._add(value)
        self.tile_energies[tiles] = tile_energies
        self.energies[atoms] = energies

    def rollback(self, undo: Undo) -> None:
        """The state before a change."""
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
        """Compensated summation: a million moves leave no trace in the sum."""
        total, rest = self._total
        both = total + value
        lost = (total - both) + value if abs(total) >= abs(value) else (value - both) + total
        self._total = (both, rest + lost)


def _common(positions: Floats, numbers: Numbers, atoms: Atoms) -> tuple[int, int]:
    """How many atoms are the same at the beginning and at the end of two lists of different length."""
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
