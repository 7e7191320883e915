"""The DEQ-attention potential: neighbour-level attention feeding a contractive equilibrium cell."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import SpeciesLinear, silu, soft_clip
from ase_andersonn.nn.message_density import MessageDensity
from ase_andersonn.nn.messages import FeatureShape, gathered
from ase_andersonn.nn.neighborhoods import Neighborhoods

from .attention_config import DEQAttentionConfig
from .base import Embedding
from .injection_network import InjectionNetwork, neighborhoods_of
from .moments import moments_of, standardized


class DEQAttention(InjectionNetwork):
    """`E = Σ_i [E_Z + s_Z readout(z_i) + ZBL_i]` with `z = f(z, x)` of scalars, and messages before the solve.

    Args:
        config: sizes and elements.
    """

    def __init__(self, config: DEQAttentionConfig) -> None:
        n_species, c = len(config.elements), config.n_channels
        super().__init__(config, FeatureShape(c, 0, 0))
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
            self.message_mean: Tensor
            self.message_std: Tensor
            self.register_buffer("message_mean", torch.zeros(n_species, self.message_density.n_features))
            self.register_buffer("message_std", torch.ones(n_species, self.message_density.n_features))
        self.make_cell(c)

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

    def message_features(self, near: Neighborhoods, messages: Tensor) -> Tensor:
        """Invariant features of the neighbours' messages [n_rows, n_features]; arguments as in `inject`."""
        features: Tensor = self.message_density(*self.clamped_edges(near), messages, near.mask)
        return features

    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """`s_Z (w_Z · silu(W z) + w'_Z · z)` [n_rows], eV."""
        return self.read(self.hidden(z, species), z, species)

    @torch.no_grad()
    def calibrate(self, geometries: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]]) -> None:
        """See `InjectionNetwork.calibrate`; also mean and standard deviation of the features of messages."""
        super().calibrate(geometries)
        if not self.n_message:
            return
        messages = (
            (near.species, (self.message_features(near, gathered(self.embed(near).message, neighbors)),))
            for near, neighbors in neighborhoods_of(geometries)
        )
        (features,) = moments_of(messages, len(self.elements))
        self.message_mean.copy_(features.mean), self.message_std.copy_(features.std)
