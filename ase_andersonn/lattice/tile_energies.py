"""Energies of the tiles of a lattice, from the network or from a table of all possible tiles.

A site has a digit, the index of its value. A small tile has few configurations, 2⁹ = 512 for nine spins of a 3×3 tile.
The network is then evaluated once for each of them and its energies are tabulated,

    e(tile) = table[code],    code = Σ_s digit_s baseˢ,

which is exact, and reduces an energy to a table look-up. The *state* of a tile is its code with a table, and its energy
without.
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
"""Largest number of configurations of a tile for which a table is made."""
TILES_AT_ONCE = 2**14
"""Number of tiles evaluated at once: large enough for an efficient network, small enough for the processor's cache."""


class TileEnergies(ABC):
    """Base of methods for the energies of the tiles of one model.

    Attributes:
        method: `"table"` or `"network"`.
        first: digit of the first value; 1 if 0 denotes sites outside an open edge.
    """

    method: Literal["table", "network"]

    def __init__(self, model: GridModel, closed: bool, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.first = 0 if closed else 1
        values = ([] if closed else [0.0]) + list(model.config.values)
        self.values = torch.tensor(values, dtype=settings.dtype, device=settings.device)

    @abstractmethod
    def grid_states(self, index: TileIndex, digits: Digits) -> NDArray[Any]:
        """States of all tiles of a grid [n_tiles] from digits [n_sites]."""

    @abstractmethod
    def states(self, contents: Digits) -> NDArray[Any]:
        """States of tiles [n] from their digits [n_places, n]."""

    @abstractmethod
    def energies(self, states: NDArray[Any]) -> Floats:
        """Energies of tiles from their states, of the same shape, eV."""

    @abstractmethod
    def changes(
        self, index: TileIndex, digits: Digits, states: NDArray[Any], sites: Ints, new: Digits
    ) -> tuple[Ints, NDArray[Any], Floats]:
        """Effect of independent changes of the digits of many sites, no two of them in one tile.

        Args:
            index: the tiles.
            digits: digits of the committed grid [n_sites + 1].
            states: states of the committed tiles [n_tiles + 1].
            sites: flat indices of the sites [n].
            new: their new digits [n].

        Returns:
            the tiles that contain each site [n_holders, n], their new states, and the energy change of each site [n],
            eV.
        """

    def evaluate(self, contents: Digits) -> Floats:
        """Energies of tiles from the network [n], eV, from their digits [n_places, n]."""
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
    """Energies from the network; a tile's state is its energy."""

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
        inside = holders < index.n_tiles
        after = states[holders]
        after[inside] = self.evaluate(patches(index, digits, holders[inside], sites, new))
        return holders, after, (after - states[holders]).sum(0)


class FromTable(TileEnergies):
    """Energies from a table of all configurations; a tile's state is its code."""

    method = "table"

    def __init__(self, model: GridModel, closed: bool, settings: Settings) -> None:
        super().__init__(model, closed, settings)
        n_places, base = int(np.prod(model.network.grid.tile)), len(self.values)
        self.powers: Ints = np.append(base ** np.arange(n_places), 0)  # 0: sites outside the tile
        codes = np.arange(base**n_places)
        self.table = self.evaluate((codes // self.powers[:-1, None] % base).astype(np.int8))
        if not np.isfinite(self.table).all():
            raise CalculationFailed("the network's energies are not finite; check the model's weights.")

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
        """See `TileEnergies.changes`: a digit's change shifts the codes of the tiles that contain the site."""
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
    """Table for tiles of at most `TABLE_STATES` configurations, otherwise the network.

    Args:
        model: the model.
        closed: whether the lattice is periodic along all axes; otherwise there is a further value for outside sites.
        settings: see `AndersoNN`.
    """
    n_places, base = int(np.prod(model.network.grid.tile)), len(model.config.values) + (not closed)
    kind = FromTable if n_places * np.log2(base) <= np.log2(TABLE_STATES) else FromNetwork
    return kind(model, closed, settings)


def patches(index: TileIndex, digits: Digits, tiles: Ints, sites: Ints, new: Digits) -> Digits:
    """Digits of tiles [n_places, n] with new digits at some sites; `digits` is not modified."""
    old = digits[sites]
    digits[sites] = new
    contents = digits[index.sites_of(tiles)]
    digits[sites] = old
    return contents
