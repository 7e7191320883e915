"""The DEQ-attention potential: neighbour-level attention feeding a contractive equilibrium cell."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from ase_andersonn.nn.blocks import SpeciesLinear, silu, soft_clip
from ase_andersonn.nn.equilibrium_cell import CellWeights, ContractiveCell
from ase_andersonn.nn.message_density import MessageDensity
from ase_andersonn.nn.messages import FeatureShape, gathered
from ase_andersonn.nn.neighbor_attention import Environment, NeighborAttention
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.nn.radial import CLAMP_FRACTION, clamped_distance, distances, local_density
from ase_andersonn.nn.zbl import zbl_energy
from ase_andersonn.structures.neighbors import Cutoff, PairCutoffs

from .attention_config import DEQAttentionConfig
from .base import MIN_DISTANCE_SHARE, Embedding, EnergyModel
from .moments import Moments, moments_of, standardized

UNTRAINED_SHARE = 0.8
"""Share of the sum of the covalent radii that stands for the shortest distance of a pair of elements never learnt."""
DEEP = (0.85, 0.75)
"""Shortest distances in shares of the sum of the covalent radii: from the first one on, where thermal motion comes
nearer at times and a network continues well, the repulsion sets in gently; down to the second one, where no motion
comes and networks were seen to pull with 140 eV/Å (H–H in NH3), at once."""
CLAMP_FRACTION_UNTRAINED = 0.97
"""As `CLAMP_FRACTION`, of the pairs where it sets in at once."""
PUSH = 3.0
"""See `zbl_energy`, of these pairs."""
DENSITY_ONSET = 1.8
"""Times the highest local density learnt, from where on an atom is pushed out of its surroundings: crystals at half
their volume. Beyond, where all neighbours come to where few ever were, what a network says levels off."""
DENSITY_PUSH = 5.0
"""eV: strength of this push; a network's pull was seen to need 2."""
UNLIMITED = 1e6
"""Stands for a local density that is not known."""

GeometryKernel = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""Function of vectors, species, species of the neighbours and mask."""

ENVIRONMENT_BUFFERS = ("environment_mean", "environment_whitening", "environment_max")
"""Buffers of the environments that were familiar in training, see `potentials/extrapolation.py`."""
MEASURED_BUFFERS = ("max_density", *ENVIRONMENT_BUFFERS)
"""These, and the highest local density."""


class DEQAttention(EnergyModel):
    """`E = Σ_i [E_Z + s_Z readout(z_i) + ZBL_i]` with `z = f(z, x)`.

    Args:
        config: sizes and elements.

    Attributes:
        distance_kernel, pair_kernel: compute `clamped_edges` and `pair_energies` another way, where they are set.
    """

    def __init__(self, config: DEQAttentionConfig) -> None:
        super().__init__(config.elements, config.cutoff, config.n_channels)
        self.config = config
        n_species, c = len(config.elements), config.n_channels
        self.distance_kernel: GeometryKernel | None = None
        self.pair_kernel: GeometryKernel | None = None
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
            nn.init.normal_(self.message.bias)  # so that at first mainly its species is heard of a neighbour
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
        numbers = torch.tensor(config.elements)
        self.reference: Tensor
        self.scale: Tensor
        self.charge: Tensor
        self.min_distance: Tensor
        self.bond: Tensor
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.register_buffer("reference", torch.zeros(n_species, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_species))
        self.register_buffer("charge", numbers.to(torch.float32), persistent=False)
        radius = torch.tensor(covalent_radii[list(config.elements)], dtype=torch.float32)
        self.register_buffer("bond", radius[:, None] + radius, persistent=False)
        self.register_buffer("min_distance", MIN_DISTANCE_SHARE * UNTRAINED_SHARE * self.bond)
        self.cutoff_ratio: Tensor
        cutoffs = torch.full((n_species, n_species), config.cutoff)
        if config.cutoff_offset is not None:
            cutoffs = config.cutoff_offset + config.cutoff_slope * self.bond
        self.register_buffer("cutoff_ratio", config.cutoff / cutoffs.clamp(max=config.cutoff), persistent=False)
        self.register_buffer("feature_mean", torch.zeros(n_species, self.attention.n_features))
        self.register_buffer("feature_std", torch.ones(n_species, self.attention.n_features))
        self.max_density: Tensor
        self.environment_mean: Tensor
        self.environment_whitening: Tensor
        self.environment_max: Tensor
        self.register_buffer("max_density", torch.full((n_species,), UNLIMITED))
        self.register_buffer("environment_mean", torch.zeros(n_species, 2 * c))
        self.register_buffer("environment_whitening", torch.zeros(n_species, 2 * c, 2 * c))
        self.register_buffer("environment_max", torch.ones(n_species))
        self.message_mean: Tensor
        self.message_std: Tensor
        if config.n_message:
            self.register_buffer("message_mean", torch.zeros(n_species, self.message_density.n_features))
            self.register_buffer("message_std", torch.ones(n_species, self.message_density.n_features))

    @cached_property
    def edge_cutoff(self) -> Cutoff:
        """See `EnergyModel.edge_cutoff`."""
        if self.config.cutoff_offset is None:
            return self.cutoff
        table = np.full((len(covalent_radii), len(covalent_radii)), self.cutoff)
        rows = np.array(self.elements)
        table[rows[:, None], rows] = (self.cutoff / self.cutoff_ratio).cpu().double().numpy()
        return PairCutoffs(table)

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

    def clamped_edges(self, near: Neighborhoods) -> tuple[Tensor, Tensor]:
        """Distances clamped at short range and scaled to one `cutoff` [n_rows, n_neighbors], Å, and directions."""
        if self.distance_kernel is not None:
            r, unit = self.distance_kernel(*near)
            return r, unit
        r = distances(near.vectors, near.mask)
        onset, clamp_fraction, _ = self.contacts(near.pair)
        return self.scaled(clamped_distance(r, onset, clamp_fraction), near), near.vectors / r[..., None]

    def scaled(self, r: Tensor, near: Neighborhoods) -> Tensor:
        """Distances in units in which every pair's cutoff is `cutoff` [n_rows, n_neighbors], Å."""
        return r if self.config.cutoff_offset is None else r * self.cutoff_ratio[near.pair]

    def local_density(self, r: Tensor, near: Neighborhoods) -> Tensor:
        """See `EnergyModel.local_density`: `local_density`, in units of each pair's cutoff."""
        return local_density(self.scaled(r, near), near.mask, self.cutoff)

    def contacts(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Repulsion at short range of pairs of species [n_rows, n_neighbors].

        Returns:
            onset of the repulsion, Å; share of it below which the network's distance is constant; and the depth of the
            onset, 0 to 1, see `DEEP`.
        """
        onset = (self.min_distance * self.config.contact_onset).clamp(max=self.cutoff)
        deep = ((DEEP[0] - onset / self.bond) * (1.0 / (DEEP[0] - DEEP[1]))).clamp(0.0, 1.0)
        return onset[pair], CLAMP_FRACTION + (CLAMP_FRACTION_UNTRAINED - CLAMP_FRACTION) * deep[pair], deep[pair]

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

    def pair_energies(self, near: Neighborhoods) -> Tensor:
        """Nuclear repulsion below the shortest distances learnt, `C (ρ/ρ₀ − 1)³` at densities `ρ > ρ₀` [n_rows], eV.

        `C` is `DENSITY_PUSH`, `ρ₀` is `DENSITY_ONSET` times the highest local density learnt.
        """
        if self.pair_kernel is not None:
            return self.pair_kernel(*near)[0]
        onset, clamp_fraction, deep = self.contacts(near.pair)
        charges = self.charge[near.species][:, None], self.charge[near.neighbor_species]
        r = distances(near.vectors, near.mask)
        crushed = self.local_density(r, near) / (DENSITY_ONSET * self.max_density[near.species]) - 1.0
        repulsion = zbl_energy(r, *charges, onset, near.mask, clamp_fraction, PUSH * deep)
        return repulsion + DENSITY_PUSH * crushed.clamp(min=0.0).pow(3)

    def reference_energies(self, species: Tensor) -> Tensor:
        """See `EnergyModel.reference_energies`."""
        return self.reference[species]

    def _apply(self, fn: Any, recurse: bool = True) -> "DEQAttention":
        """Keep the reference energies in float64, whatever the precision of the rest."""
        reference = self.reference.double()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reference = reference.to(self.reference.device)
        return self

    optional_tensors = (("max_density",), ENVIRONMENT_BUFFERS)

    def absent_tensors(self) -> tuple[str, ...]:
        """See `Potential.absent_tensors`: the clouds of familiar environments, before they are measured."""
        return () if bool(self.environment_whitening.any()) else ENVIRONMENT_BUFFERS

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As of every module; what earlier versions did not measure stays unknown."""
        unknown = {name: getattr(self, name) for name in MEASURED_BUFFERS if name not in state_dict}
        return super().load_state_dict({**state_dict, **unknown}, strict, assign)

    def injected_scalars(self, u: Tensor, v: Tensor) -> Tensor:
        """What of the injection no rotation changes [n_atoms, 2 n_channels], by which surroundings are compared."""
        return torch.cat([u[:, : self.config.n_channels], v[:, : self.config.n_channels]], -1)

    def extrapolation(self, u: Tensor, v: Tensor, species: Tensor) -> Tensor | None:
        """See `EnergyModel.extrapolation`: `|W_Z (x − x̄_Z)|²` of the scalars `x` of `u` and `v`."""
        if not bool(self.environment_whitening[:, -1, -1].any()):  # triangular, with a positive diagonal
            return None
        away = self.injected_scalars(u, v) - self.environment_mean[species]
        found = torch.zeros_like(away[:, 0])
        for index in species.unique().tolist():
            own = species == index
            found[own] = (away[own] @ self.environment_whitening[index]).square().sum(-1)
        return found

    def set_reference(self, energies: dict[int, float], scales: dict[int, float]) -> None:
        """See `EnergyModel.set_reference`."""
        for index, number in enumerate(self.elements):
            self.reference[index] = energies[number]
            self.scale[index] = scales[number]

    def move_reference(self, shifts: dict[int, float]) -> None:
        """See `EnergyModel.move_reference`."""
        for number, shift in shifts.items():
            self.reference[self.elements.index(number)] += shift

    @torch.no_grad()
    def calibrate(self, geometries: Callable[[], Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]]) -> None:
        """Measure mean and standard deviation of each species' features, so that the network sees them in these units.

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
