"""Energies of a lattice's tiles, from the network itself or from a table of all that it can say.

A site has a digit, the number of its value. A tile of few sites has few contents: nine spins of a 3×3 tile have 2⁹ =
512. Then the network is evaluated once for each and its answers are kept,

    e(tile) = table[code],    code = Σ_s digit_s baseˢ,

which is exact, and makes an energy the price of a look-up. What is kept of a tile is its *state*: its code where there
is a table, its energy where there is none.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from ase.calculators.calculator import CalculationFailed
from numpy.typing import NDArray

from ase_andersonn.backends import exact_matmul
from ase_andersonn.potentials.interface import ConvergenceError, Settings

from .model import GridModel
from .networks import UnsolvedError
from .tile_index import TileIndex

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Digits = NDArray[np.int8]
TABLE_STATES = 2**16
"""Contents of a tile up to which a table is made."""
TILES_AT_ONCE = 2**14
"""Tiles evaluated at once: many enough for the network to be efficient, few enough for the processor's cache."""


class TileEnergies(ABC):
    """Energies of the tiles of one model.

    Attributes:
        method: `"table"` or `"network"`.
        first: digit of the first value. It is 1 where 0 stands for the outside of an open edge.
    """

    method: Literal["table", "network"]

    def __init__(self, model: GridModel, closed: bool, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.first = 0 if closed else 1
        values = ([] if closed else [0.0]) + list(model.config.values)
        self.values = torch.tensor(values, dtype=settings.dtype, device=settings.device)

    @abstractmethod
    def grid_states(self, index: TileIndex, digits: Digits) -> NDArray[Any]:
        """States of all tiles of a grid [n_tiles]; digits are [n_sites]."""

    @abstractmethod
    def states(self, contents: Digits) -> NDArray[Any]:
        """States of tiles by what they contain [n]; contents are digits [n_places, n]."""

    @abstractmethod
    def energies(self, states: NDArray[Any]) -> Floats:
        """Energies of tiles by their states, of the same shape, eV."""

    @abstractmethod
    def changes(
        self, index: TileIndex, digits: Digits, states: NDArray[Any], sites: Ints, new: Digits
    ) -> tuple[Ints, NDArray[Any], Floats]:
        """What new digits at each of many sites change, none of which stand in one tile.

        Args:
            index: the tiles.
            digits: of the settled grid [n_sites + 1].
            states: of the settled tiles [n_tiles + 1].
            sites: [n].
            new: their digits [n].

        Returns:
            the tiles that hold each site [n_holders, n], their new states, and the change of the energy [n], eV.
        """

    def evaluate(self, contents: Digits) -> Floats:
        """The network's energies of tiles [n], eV; contents are digits [n_places, n]."""
        shape = self.model.network.grid.tile
        energies = np.empty(contents.shape[1])
        for first in range(0, len(energies), TILES_AT_ONCE):
            chunk = torch.from_numpy(contents[:, first : first + TILES_AT_ONCE].T.astype(np.int64))
            tiles = self.values[chunk.to(self.values.device)].view(-1, 1, *shape)
            energies[first : first + TILES_AT_ONCE] = self._network(tiles)
        return energies

    def _network(self, x: torch.Tensor) -> Floats:
        try:
            with torch.no_grad(), exact_matmul():
                found: Floats = self.model.network(x).double().cpu().numpy().reshape(-1)
        except UnsolvedError as error:
            raise ConvergenceError(str(error)) from error
        return found


class FromNetwork(TileEnergies):
    """The network is asked; a tile's state is its energy."""

    method = "network"

    def grid_states(self, index: TileIndex, digits: Digits) -> Floats:
        """See `TileEnergies.grid_states`; by convolution, slab by slab."""
        grid = self.values[torch.from_numpy(digits.astype(np.int64)).to(self.values.device)].view(1, 1, *index.sizes)
        slabs = index.grid.slabs(index.grid.pad(grid), TILES_AT_ONCE)
        return np.concatenate([self._network(slab) for slab in slabs])

    def states(self, contents: Digits) -> Floats:
        """See `TileEnergies.states`."""
        return self.evaluate(contents)

    def energies(self, states: NDArray[Any]) -> Floats:
        """See `TileEnergies.energies`."""
        return states

    def changes(
        self, index: TileIndex, digits: Digits, states: NDArray[Any], sites: Ints, new: Digits
    ) -> tuple[Ints, NDArray[Any], Floats]:
        """See `TileEnergies.changes`."""
        holders = index.tiles_of(sites)
        held = holders < index.n_tiles
        after = states[holders]
        after[held] = self.evaluate(patches(index, digits, holders[held], sites, new))
        return holders, after, (after - states[holders]).sum(0)


class FromTable(TileEnergies):
    """All contents are listed; a tile's state is its code."""

    method = "table"

    def __init__(self, model: GridModel, closed: bool, settings: Settings) -> None:
        super().__init__(model, closed, settings)
        n_places, base = int(np.prod(model.network.grid.tile)), len(self.values)
        self.powers: Ints = np.append(base ** np.arange(n_places), 0)  # 0: sites not held
        codes = np.arange(base**n_places)
        self.table = self.evaluate((codes // self.powers[:-1, None] % base).astype(np.int8))
        if not np.isfinite(self.table).all():
            raise CalculationFailed("the network's energies are not finite; are the weights?")

    def grid_states(self, index: TileIndex, digits: Digits) -> Ints:
        """See `TileEnergies.grid_states`: a convolution with the powers of the base."""
        padded = index.grid.pad(torch.from_numpy(digits).view(1, 1, *index.sizes))[0, 0].numpy()
        codes = np.zeros(index.tile_counts, int)
        for power, start in zip(self.powers, np.ndindex(index.grid.tile), strict=False):
            window = tuple(
                slice(s, s + (n - 1) * f + 1, f)
                for s, n, f in zip(start, index.tile_counts, index.grid.focus, strict=True)
            )
            codes += power * padded[window]
        return codes.reshape(-1)

    def states(self, contents: Digits) -> Ints:
        """See `TileEnergies.states`."""
        codes: Ints = self.powers[:-1] @ contents
        return codes

    def energies(self, states: NDArray[Any]) -> Floats:
        """See `TileEnergies.energies`."""
        energies: Floats = self.table.take(states)
        return energies

    def changes(
        self, index: TileIndex, digits: Digits, states: NDArray[Any], sites: Ints, new: Digits
    ) -> tuple[Ints, NDArray[Any], Floats]:
        """See `TileEnergies.changes`: a site's digit changes the codes of the tiles that hold it by known amounts."""
        steps: Ints = (new - digits.take(sites)).astype(np.int64)
        holders, weights = index.tiles_of(sites), self.powers[index.places_of(sites)]
        after: Ints = np.empty_like(holders)
        changes = np.zeros(len(sites))
        for tiles, weight, codes in zip(holders, weights, after, strict=True):  # row by row: they fit the cache
            before = states.take(tiles)
            np.multiply(steps, weight, out=codes)
            codes += before
            changes += self.table.take(codes)
            changes -= self.table.take(before)
        return holders, after, changes


def tile_energies(model: GridModel, closed: bool, settings: Settings) -> TileEnergies:
    """A table where a tile has at most `TABLE_STATES` contents, else the network.

    Args:
        model: the model.
        closed: whether the lattice is periodic along all its axes; an open edge adds the outside to the values.
        settings: see `AndersoNN`.
    """
    n_places, base = int(np.prod(model.network.grid.tile)), len(model.config.values) + (not closed)
    kind = FromTable if n_places * np.log2(base) <= np.log2(TABLE_STATES) else FromNetwork
    return kind(model, closed, settings)


def patches(index: TileIndex, digits: Digits, tiles: Ints, sites: Ints, new: Digits) -> Digits:
    """Contents of tiles [n_places, n] as they would be with new digits at some sites; `digits` stay as they are."""
    old = digits[sites]
    digits[sites] = new
    contents = digits[index.sites_of(tiles)]
    digits[sites] = old
    return contents
