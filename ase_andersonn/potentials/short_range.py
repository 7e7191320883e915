"""Short range of a potential of atoms: known elements, cutoffs, clamped distances and nuclear repulsion."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.nn.radial import CLAMP_FRACTION, clamped_distance, distances, local_density
from ase_andersonn.nn.zbl import zbl_energy
from ase_andersonn.pretrained.catalog import models_of
from ase_andersonn.structures.elements import element_names
from ase_andersonn.structures.neighbors import Cutoff, PairCutoffs

from .energy_config import EnergyModelConfig
from .interface import Potential

MIN_DISTANCE_SHARE = 0.9
"""`min_distance` of a pair is this share of the shortest distance of the pair among the training frames: atoms in
motion come a little nearer than in any frame, and only shorter distances are warned of."""
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
"""Times the highest local density learnt, from where on an atom is pushed out of its environment: crystals at half
their volume. Beyond, where all neighbours come to where few ever were, what a network says levels off."""
DENSITY_PUSH = 5.0
"""eV: strength of this push; a network's pull was seen to need 2."""
UNLIMITED = 1e6
"""Stands for a local density that is not known."""
EdgeKernel = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""Function of the fields of `Neighborhoods`."""


class ShortRange(Potential):
    """Potential whose distances are clamped, and which repels, below the shortest distances of its training data.

    Args:
        config: elements and cutoffs.

    Attributes:
        distance_kernel, pair_kernel: compute `clamped_edges` and `pair_energies` another way, where they are set.
    """

    config: EnergyModelConfig
    distance_kernel: EdgeKernel | None = None
    pair_kernel: EdgeKernel | None = None

    def __init__(self, config: EnergyModelConfig) -> None:
        super().__init__()
        self.config, self.elements, self.cutoff = config, tuple(config.elements), config.cutoff
        n_species, numbers = len(self.elements), torch.tensor(self.elements)
        lookup = torch.full((max(self.elements) + 1,), -1)
        lookup[numbers] = torch.arange(n_species)
        self.species_of_number: Tensor
        self.charge: Tensor
        self.bond: Tensor
        self.min_distance: Tensor
        self.cutoff_ratio: Tensor
        self.max_density: Tensor
        self.register_buffer("species_of_number", lookup, persistent=False)
        self.register_buffer("charge", numbers.to(torch.float32), persistent=False)
        radius = torch.tensor(covalent_radii[list(self.elements)], dtype=torch.float32)
        self.register_buffer("bond", radius[:, None] + radius, persistent=False)
        self.register_buffer("min_distance", MIN_DISTANCE_SHARE * UNTRAINED_SHARE * self.bond)
        cutoffs = torch.full((n_species, n_species), config.cutoff)
        if config.cutoff_offset is not None:
            cutoffs = config.cutoff_offset + config.cutoff_slope * self.bond
        self.register_buffer("cutoff_ratio", config.cutoff / cutoffs.clamp(max=config.cutoff), persistent=False)
        self.register_buffer("max_density", torch.full((n_species,), UNLIMITED))

    @cached_property
    def edge_cutoff(self) -> Cutoff:
        """Cutoff of a graph's edges; longer ones add nothing."""
        if self.config.cutoff_offset is None:
            return self.cutoff
        table = np.full((len(covalent_radii), len(covalent_radii)), self.cutoff)
        rows = np.array(self.elements)
        table[rows[:, None], rows] = (self.cutoff / self.cutoff_ratio).cpu().double().numpy()
        return PairCutoffs(table)

    def species(self, numbers: Tensor) -> Tensor:
        """Index of the species of each atom [n_atoms].

        Raises:
            ValueError: if an element is not one of the model's.
        """
        known = self.species_of_number
        inside = (numbers >= 0) & (numbers < len(known))
        index = torch.where(inside, known[numbers.clamp(0, len(known) - 1)], -1)
        if bool((index < 0).any()):
            raise ValueError(unknown_elements(numbers.unique().tolist(), self.elements))
        return index

    def set_min_distance(self, distances: dict[tuple[int, int], float]) -> None:
        """Set the distance (Å) of each pair of elements down to which the network is trusted; below, pairs repel.

        Keys are pairs of atomic numbers; a distance is `MIN_DISTANCE_SHARE` times the shortest one of the training
        frames, of which a pair without one has a share of the sum of the covalent radii.
        """
        for (first, second), distance in distances.items():
            i, j = self.elements.index(first), self.elements.index(second)
            self.min_distance[i, j] = self.min_distance[j, i] = distance

    def lower_min_distance(self, distances: dict[tuple[int, int], float]) -> None:
        """As `set_min_distance`, of pairs whose present distance is larger."""
        for (first, second), distance in distances.items():
            known = float(self.min_distance[self.elements.index(first), self.elements.index(second)])
            self.set_min_distance({(first, second): min(distance, known)})

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
        """Dimensionless density of the neighbours of each atom [n_rows], 0 without neighbours; see `nn.radial`.

        Args:
            r: distances [n_rows, n_neighbors], Å.
            near: neighbourhoods.
        """
        return local_density(self.scaled(r, near), near.mask, self.cutoff)

    def contacts(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Repulsion at short range of pairs of species [n_rows, n_neighbors].

        Returns:
            onset of the repulsion, Å; share of it below which the network's distance is constant; and the depth of the
            onset from 0 to 1, see `DEEP`.
        """
        onset = (self.min_distance * self.config.contact_onset).clamp(max=self.cutoff)
        deep = ((DEEP[0] - onset / self.bond) * (1.0 / (DEEP[0] - DEEP[1]))).clamp(0.0, 1.0)
        return onset[pair], CLAMP_FRACTION + (CLAMP_FRACTION_UNTRAINED - CLAMP_FRACTION) * deep[pair], deep[pair]

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


def unknown_elements(numbers: Collection[int], known: Sequence[int]) -> str:
    """The text of the error for atomic numbers some of which a model does not know; it names models that do."""
    missing = sorted(set(numbers) - set(known))
    others = models_of(missing)
    named = element_names(missing)
    remedy = f"Packaged models that know {named}: {', '.join(others)}." if others else ""
    return f"The structure contains {named}; this model knows {element_names(known)}. " + (
        remedy or f"No packaged model knows {named}: train one."
    )
