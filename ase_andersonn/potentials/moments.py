"""Mean and standard deviation of features of each species' atoms, gathered batch by batch."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ase_andersonn.nn.blocks import soft_clip

CLIP = 10.0
"""Standard deviations from the mean at which features level off: unknown environments stay within bounds."""
STD_FLOOR = 1e-3
"""Added to the standard deviation of features: what varies much less comes in weakened, as the products of three
densities do in crystals. A sum in proportion to the features' size instead fitted the training frames faster, and
others no better."""
POOLED_ATOMS = 300.0
"""Atoms of a species at which its own standard deviation counts as much as that of all species: few atoms in few
structures vary little, and all others of the species would saturate."""


class Moments:
    """Sums of features and of their squares, of each species.

    Args:
        n_species: number of species.
        n_features: number of features.
    """

    def __init__(self, n_species: int, n_features: int) -> None:
        self.count = torch.zeros(n_species, 1, dtype=torch.float64)
        self.sum = torch.zeros(n_species, n_features, dtype=torch.float64)
        self.square = torch.zeros_like(self.sum)

    def add(self, species: Tensor, features: Tensor) -> None:
        """Take in atoms: species [n_atoms], features [n_atoms, n_features]."""
        x, index = features.double().cpu(), species.cpu()
        self.count.index_add_(0, index, torch.ones(len(index), 1, dtype=torch.float64))
        self.sum.index_add_(0, index, x)
        self.square.index_add_(0, index, x * x)

    @property
    def mean(self) -> Tensor:
        """Of each species; of all atoms where there are none of it [n_species, n_features]."""
        return self._or_pooled(self.sum)

    @property
    def mean_square(self) -> Tensor:
        """Of each species; of all atoms where there are none of it [n_species, n_features]."""
        return self._or_pooled(self.square)

    @property
    def std(self) -> Tensor:
        """`σ_Z^w σ^(1−w) + STD_FLOOR`, w = n_Z / (n_Z + POOLED_ATOMS) [n_species, n_features].

        `σ_Z` is the standard deviation of a species' atoms about their mean, `σ` that of all atoms about the means of
        their species.
        """
        variance = (self.mean_square - self.mean.square()).clamp(min=0.0)
        pooled = (self.count * variance).sum(0) / self.count.sum().clamp(min=1.0)
        share = self.count / (self.count + POOLED_ATOMS)
        floor = STD_FLOOR**2
        return ((variance + floor).log() * share + (pooled + floor).log() * (1.0 - share)).mul(0.5).exp() + STD_FLOOR

    def _or_pooled(self, total: Tensor) -> Tensor:
        pooled = total.sum(0) / self.count.sum().clamp(min=1.0)
        return torch.where(self.count > 0, total / self.count.clamp(min=1.0), pooled)


def moments_of(measured: Iterable[tuple[Tensor, tuple[Tensor, ...]]], n_species: int) -> list[Moments]:
    """The moments of several kinds of features, from batches of species and rows of each kind."""
    found: list[Moments] = []
    for species, parts in measured:
        rows = [part.flatten(1) for part in parts]
        found = found or [Moments(n_species, part.shape[1]) for part in rows]
        for moments, part in zip(found, rows, strict=True):
            moments.add(species, part)
    return found


def standardized(features: Tensor, feature_mean: Tensor, feature_std: Tensor) -> Tensor:
    """Standardised features within bounds; all [n_atoms, n_features]."""
    return soft_clip((features - feature_mean) / feature_std, CLIP)
