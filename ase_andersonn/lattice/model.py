"""Extensive networks on spin lattices: the energy is a sum over tiles.

    E = Σ_t e(spins in tile t)

Mills et al., Chem. Sci. 10, 4129 (2019).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ase_andersonn.potentials.interface import Potential

from .grid import TileGrid
from .networks import Convolutional, Equilibrium, FullyConnected, TileNetwork
from .spins import PRIMITIVE, Lattice

NetworkKind = Literal["fully_connected", "convolutional", "equilibrium"]


@dataclass(frozen=True)
class GridConfig:
    """Hyperparameters of a `GridModel`.

    Args:
        lattice: the lattice of the spins; see `lattice.spins`.
        focus: sites of a tile's focus along each axis.
        context: sites of context on each side.
        network: kind of the tile network; see `lattice.networks`.
        n_hidden: width of the network.
        n_layers: hidden layers, or convolutions; an equilibrium network has one layer, at its fixed point.
        contraction: contraction factor of an equilibrium network.
        values: allowed moments of a site, ascending.
    """

    lattice: Lattice = "square"
    focus: int = 1
    context: int = 1
    network: NetworkKind = "fully_connected"
    n_hidden: int = 32
    n_layers: int = 1
    contraction: float = 0.7
    values: tuple[float, ...] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        if self.lattice not in PRIMITIVE:
            raise ValueError(f"lattice is {self.lattice!r}; choose one of {', '.join(PRIMITIVE)}.")
        if self.n_hidden < 1 or self.n_layers < 1:
            raise ValueError(f"n_hidden is {self.n_hidden} and n_layers {self.n_layers}; both must be at least 1.")
        if len(self.values) < 2 or sorted(set(self.values)) != list(self.values):
            raise ValueError(f"values is {self.values}; give at least two different numbers, ascending.")
        self.tiles(())  # checks focus and context

    @property
    def n_axes(self) -> int:
        """Dimensions of the lattice."""
        return len(PRIMITIVE[self.lattice])

    def tiles(self, periodic: tuple[bool, ...]) -> TileGrid:
        """Tiles of a grid with these boundary conditions."""
        n = self.n_axes
        return TileGrid((self.focus,) * n, (self.context,) * n, periodic or (True,) * n)


class GridModel(Potential):
    """Energy of spins on a lattice, given as initial magnetic moments, eV.

    The species of the atoms have no effect. Models with unit coupling, such as the packaged Ising model, have J = 1 eV,
    so a reduced temperature T is `T / ase.units.kB` K.
    """

    reads_magmoms = True
    elements = ()

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        self.network = tile_network(
            config.network, config.tiles(()), 1, config.n_hidden, config.n_layers, config.contraction
        )

    def tile_energies(self, values: Tensor, periodic: tuple[bool, ...] = ()) -> Tensor:
        """Energy of every tile [n_systems, *n_tiles], eV, differentiable in the values.

        Args:
            values: values at the sites [n_systems, *sizes].
            periodic: whether each axis is periodic; all by default.

        Raises:
            ValueError: if the tiles do not fit the grid; see `TileGrid.n_tiles`.
        """
        energies: Tensor = self.network(self.config.tiles(periodic).pad(values[:, None]))
        return energies

    def forward(self, values: Tensor, periodic: tuple[bool, ...] = ()) -> Tensor:
        """Energy of every grid [n_systems], eV, float64; see `tile_energies`."""
        return self.tile_energies(values, periodic).flatten(1).sum(1, dtype=torch.float64)


def tile_network(
    kind: NetworkKind, grid: TileGrid, n_in: int, n_hidden: int, n_layers: int, contraction: float
) -> TileNetwork:
    """Create the tile network of a given kind.

    Raises:
        ValueError: for an unknown kind, or invalid sizes.
    """
    if kind == "fully_connected":
        return FullyConnected(grid, n_in, n_hidden, n_layers)
    if kind == "convolutional":
        return Convolutional(grid, n_in, n_hidden, n_layers)
    if kind == "equilibrium":
        return Equilibrium(grid, n_in, n_hidden, contraction)
    raise ValueError(f"network is {kind!r}; choose 'fully_connected', 'convolutional' or 'equilibrium'.")
