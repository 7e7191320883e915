"""The DEQ-attention potential: neighbour-level attention feeding a contractive equilibrium cell."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import SpeciesLinear, silu, soft_clip
from ase_andersonn.nn.equilibrium_cell import CellWeights, ContractiveCell
from ase_andersonn.nn.message_density import MessageDensity
from ase_andersonn.nn.messages import FeatureShape, gathered
from ase_andersonn.nn.neighbor_attention import Environment, NeighborAttention
from ase_andersonn.nn.neighborhoods import Neighborhoods

from .attention_config import DEQAttentionConfig
from .base import Embedding, EnergyModel
from .moments import Moments, moments_of, standardized


class DEQAttention(EnergyModel):
    """`E = Σ_i [E_Z + s_Z readout(z_i) + ZBL_i]` with `z = f(z, x)`.

    Args:
        config: sizes and elements.
    """

    config: DEQAttentionConfig

    def __init__(self, config: DEQAttentionConfig) -> None:
        super().__init__(config)
        n_species, c = len(config.elements), config.n_channels
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
        self.n_message = config.n_message
        if config.n_message:
            self.message = SpeciesLinear(config.n_hidden, config.n_message, n_species)
            nn.init.normal_(self.message.bias)  # so that at first a message is mainly its sender's species
            self.message_density = MessageDensity(
                cutoff=config.cutoff,
                n_radial=config.n_radial,
                l_max=config.l_max,
                n_message=config.n_message,
                n_pairs=min(config.n_pairs, config.n_message // 2 + 1),
                n_bispectrum=config.n_bispectrum,
            )
            self.message_inject = nn.Linear(self.message_density.n_features, config.n_hidden, bias=False)
        self.cell = ContractiveCell(config.contraction, FeatureShape(c, 0, 0))
        self.hidden = SpeciesLinear(c, c, n_species)
        self.output = nn.Parameter(0.1 * torch.randn(n_species, c))
        self.linear = config.linear
        if config.linear:
            self.linear_inject = SpeciesLinear(config.n_hidden, c, n_species)
            self.linear_output = nn.Parameter(0.1 * torch.randn(n_species, c))
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.register_buffer("feature_mean", torch.zeros(n_species, self.attention.n_features))
        self.register_buffer("feature_std", torch.ones(n_species, self.attention.n_features))
        self.message_mean: Tensor
        self.message_std: Tensor
        if config.n_message:
            self.register_buffer("message_mean", torch.zeros(n_species, self.message_density.n_features))
            self.register_buffer("message_std", torch.ones(n_species, self.message_density.n_features))

    def embed(self, near: Neighborhoods) -> Embedding:
        """See `EnergyModel.embed`."""
        species = near.species
        features, gates = self.attention(*self.clamped_edges(near), species, near.neighbor_species, near.mask)
        node = self.injection[0](standardized(features, self.feature_mean[species], self.feature_std[species]), species)
        message = self.message(silu(node), species) if self.n_message else node[:, :0]
        if self.config.message_limit is not None:
            message = soft_clip(message, self.config.message_limit)
        return Embedding(node, message, gates)

    def inject(self, near: Neighborhoods, node: Tensor, messages: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `EnergyModel.inject`."""
        if messages is not None:
            features = self.message_features(near, messages)
            node = node + self.message_inject(
                standardized(features, self.message_mean[near.species], self.message_std[near.species])
            )
        _, u, v = self.injected(node, near.species)
        return u, v

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

    def message_features(self, near: Neighborhoods, messages: Tensor) -> Tensor:
        """Invariant features of the neighbours' messages [n_rows, n_features]; arguments as in `inject`."""
        features: Tensor = self.message_density(*self.clamped_edges(near), messages, near.mask)
        return features

    def cell_weights(self) -> CellWeights:
        """See `EnergyModel.cell_weights`."""
        return self.cell.weights()

    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """`s_Z (w_Z · silu(W z) + w'_Z · z)` [n_rows], eV."""
        return self.read(self.hidden(z, species), z, species)

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
        n = len(self.elements)

        def batches() -> Iterator[tuple[Neighborhoods, Tensor]]:
            for vectors, species, neighbors, mask in geometries():
                yield Neighborhoods(vectors, species, species[neighbors], mask), neighbors

        self.set_units(*moments_of(((near.species, self.measured(near)) for near, _ in batches()), n))
        if not self.n_message:
            return
        messages = (
            (near.species, (self.message_features(near, gathered(self.embed(near).message, neighbors)),))
            for near, neighbors in batches()
        )
        (features,) = moments_of(messages, n)
        self.message_mean.copy_(features.mean), self.message_std.copy_(features.std)

    def measured(self, near: Neighborhoods) -> tuple[Tensor, ...]:
        """Features to be standardised, a row for each atom."""
        return (self.environment(near).features,)

    def set_units(self, features: Moments) -> None:
        """Set the units of the features by what was measured of each species' atoms."""
        self.feature_mean.copy_(features.mean), self.feature_std.copy_(features.std)
