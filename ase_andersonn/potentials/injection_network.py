"""What the potentials of neighbour attention share: the attention, the injection network, the cell, the readout."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import SpeciesLinear, silu
from ase_andersonn.nn.equilibrium_cell import CellWeights, ContractiveCell
from ase_andersonn.nn.irreps import dim
from ase_andersonn.nn.messages import FeatureShape
from ase_andersonn.nn.neighbor_attention import Environment, NeighborAttention
from ase_andersonn.nn.neighborhoods import Neighborhoods

from .attention_config import DEQAttentionConfig
from .base import EnergyModel
from .moments import Moments, moments_of


class InjectionNetwork(EnergyModel):
    """Neighbour attention, an injection network per species, a contractive cell and a readout of scalars.

    Args:
        config: sizes and elements.
        shape: scalars and tensors of the features `z`.
    """

    config: DEQAttentionConfig

    def __init__(self, config: DEQAttentionConfig, shape: FeatureShape) -> None:
        super().__init__(config, dim(*shape))
        n_species, c = len(config.elements), config.n_channels
        self.shape, self.n_gates = shape, shape.n_gates
        self.attention = NeighborAttention(
            n_species=n_species,
            cutoff=config.cutoff,
            n_radial=config.n_radial,
            l_max=config.l_max,
            n_edge=config.n_edge,
            n_token=config.n_token,
            n_heads=config.n_heads,
            n_channels=c,
            n_pairs=config.n_pairs,
            n_bispectrum=config.n_bispectrum,
            separable=config.separable,
        )
        self.injection = nn.ModuleList(
            [
                SpeciesLinear(self.attention.n_features, config.n_hidden, n_species),
                SpeciesLinear(config.n_hidden, config.n_hidden, n_species),
                SpeciesLinear(config.n_hidden, 2 * c, n_species),
            ]
        )
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_species, self.attention.n_features))
        self.register_buffer("feature_std", torch.ones(n_species, self.attention.n_features))

    def make_cell(self, n_read: int) -> None:
        """Make cell and readout, whose network has inputs of this width."""
        config, n_species, c = self.config, len(self.config.elements), self.config.n_channels
        self.cell = ContractiveCell(config.contraction, self.shape)
        self.hidden = SpeciesLinear(n_read, c, n_species)
        self.output = nn.Parameter(0.1 * torch.randn(n_species, c))
        self.linear = config.linear
        if config.linear:
            self.linear_inject = SpeciesLinear(config.n_hidden, c, n_species)
            self.linear_output = nn.Parameter(0.1 * torch.randn(n_species, c))

    def injected(self, node: Tensor, species: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The injection network's features [n_rows, n_hidden], the scalars of `u` and of `v` [n_rows, n_channels].

        Args:
            node: features of the neighbourhood and of messages, mapped to the network's width [n_rows, n_hidden].
            species: [n_rows].
        """
        x = silu(node)
        x = x + silu(self.injection[1](x, species))
        u, v = self.injection[2](x, species).chunk(2, -1)
        if self.linear:
            u = u + self.linear_inject(node, species)
        return x, u, v

    def environment(self, near: Neighborhoods) -> Environment:
        """Tokens, density and features of the attention."""
        species = self.attention.pair_species(near.species, near.neighbor_species)
        return self.attention.environment(*self.clamped_edges(near), species, near.mask)

    def cell_weights(self) -> CellWeights:
        """See `EnergyModel.cell_weights`."""
        return self.cell.weights()

    def read(self, x: Tensor, scalars: Tensor, species: Tensor) -> Tensor:
        """`s_Z (w_Z · silu(x) + w'_Z · z₀)` [n_rows], eV.

        Args:
            x: `W z`, see `readout` [n_rows, n_channels].
            scalars: `z₀`, the features that are no tensors [n_rows, n_channels].
            species: [n_rows].
        """
        energies = self.output[species] * silu(x)
        if self.linear:
            energies = energies + self.linear_output[species] * scalars
        return self.scale[species] * energies.sum(-1)

    @torch.no_grad()
    def calibrate(self, geometries: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]]) -> None:
        """Measure mean and standard deviation of each species' features, which standardise them.

        In a crystal the features of all atoms are nearly alike, and what tells them apart is a hundredth of their size:
        unscaled, training is slow.
        """
        near = (near for near, _ in neighborhoods_of(geometries))
        self.set_units(*moments_of(((n.species, self.measured(n)) for n in near), len(self.elements)))

    def measured(self, near: Neighborhoods) -> tuple[Tensor, ...]:
        """Features to be standardised, a row for each atom."""
        return (self.environment(near).features,)

    def set_units(self, features: Moments) -> None:
        """Set the units of the features by what was measured of each species' atoms."""
        self.feature_mean.copy_(features.mean), self.feature_std.copy_(features.std)


def neighborhoods_of(
    geometries: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]],
) -> Iterator[tuple[Neighborhoods, Tensor]]:
    """Neighbourhoods and neighbours of the arguments of `EnergyModel.encode`."""
    for vectors, species, neighbors, mask in geometries():
        yield Neighborhoods(vectors, species, species[neighbors], mask), neighbors
