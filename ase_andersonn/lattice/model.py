"""Extensive networks on spin lattices: the energy of a grid of spins is a sum over its tiles.

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
    """Shape of a `GridModel`.

    Args:
        lattice: the lattice that the spins sit on; see `lattice.spins`.
        focus: sites of a tile's own along each axis.
        context: sites of its neighbours on each side.
        network: what gives a tile its energy; see `lattice.networks`.
        n_hidden: width of the network.
        n_layers: hidden layers, or convolutions; an equilibrium network has one layer, at its fixed point.
        contraction: of an equilibrium network.
        values: what a site's moment may be, ascending.
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
        self.tiles(())  # which checks focus and context

    @property
    def n_axes(self) -> int:
        """Dimensions of the lattice."""
        return len(PRIMITIVE[self.lattice])

    def tiles(self, periodic: tuple[bool, ...]) -> TileGrid:
        """The tiles of a grid with these boundary conditions."""
        n = self.n_axes
        return TileGrid((self.focus,) * n, (self.context,) * n, periodic or (True,) * n)


class GridModel(Potential):
    """Energy of spins on a lattice, their initial magnetic moments; in eV, as everything of ASE.

    The chemical species of the atoms is not looked at. Models with a coupling of one, such as the packaged Ising
    model, count their energy in units of J = 1 eV, and a temperature of T J is `T / ase.units.kB` K.
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
            values: of the sites, [n_systems, *sizes].
            periodic: per axis; all are where not given.

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
    """The network of that name.

    Raises:
        ValueError: for an unknown name, or numbers that do not fit it.
    """
    if kind == "fully_connected":
        return FullyConnected(grid, n_in, n_hidden, n_layers)
    if kind == "convolutional":
        return Convolutional(grid, n_in, n_hidden, n_layers)
    if kind == "equilibrium":
        return Equilibrium(grid, n_in, n_hidden, contraction)
    raise ValueError(f"network is {kind!r}; choose 'fully_connected', 'convolutional' or 'equilibrium'.")
