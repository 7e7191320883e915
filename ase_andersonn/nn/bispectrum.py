"""Products of densities that no rotation changes: the power spectrum, and the bispectrum.

The power spectrum `Σ_m A_lm A_lm` knows angles between two neighbours alone; surroundings that differ in how three of
them stand may have the same. The products of three densities to a number are the next invariants. Those of an even
sum of degrees are no pseudoscalars; what has a degree 0 in it is a power spectrum times a number, and is left out.

Sources: Bartók, Kondor and Csányi, arXiv 1209.3140 (bispectrum); Drautz, Phys. Rev. B 99, 014104 (2019) (products of
densities as an expansion in body orders); Pozdnyakov et al., arXiv 2001.11696 (surroundings of one power spectrum).
"""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Affine
from .cartesian import Path, product_table


def power_spectrum(density: Tensor, n_pairs: int) -> Tensor:
    """`Σ_m A_lmc A_lm,c−k` for k = 0 … n_pairs − 1.

    The density is [n_atoms, (l_max + 1)², n_channels], the result [n_atoms, (l_max + 1) n_pairs n_channels] by degree,
    then by k, then by channel.
    """
    product = torch.cat([density * density.roll(k, -1) for k in range(n_pairs)], -1)
    parts = torch.split(product, [2 * degree + 1 for degree in range(math.isqrt(density.shape[1]))], 1)
    return torch.cat([part.sum(1) for part in parts], -1)


def triples(l_max: int) -> list[Path]:
    """Degrees `l₁ ≤ l₂ ≤ l₃` of the products; the first two are coupled to the third."""
    return [
        (first, second, third)
        for first, second, third in itertools.combinations_with_replacement(range(1, l_max + 1), 3)
        if third <= first + second and (first + second + third) % 2 == 0
    ]


class Bispectrum(nn.Module):
    """`B_c = Σ_ijk C_ijk A_l₁ic A_l₂jc A_l₃kc` for each of the `triples` and mixed channels of the density.

    Args:
        n_edge: channels of the density.
        n_channels: channels that are mixed from them, of each degree others.
        l_max: highest degree of the density, at least 2.
    """

    def __init__(self, n_edge: int, n_channels: int, l_max: int) -> None:
        super().__init__()
        self.triples = triples(l_max)
        self.n_features = n_channels * len(self.triples)
        self.mix = nn.ModuleList([Affine(n_edge, n_channels, bias=False) for _ in range(l_max)])
        for i, degrees in enumerate(self.triples):
            table = torch.from_numpy(product_table(degrees)).flatten(0, 1)
            self.register_buffer(f"table{i}", table, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Bispectrum":
        """Keep the tables in float64, whatever the precision of the rest: what single precision loses is gone."""
        tables = self.tables()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for i, (table, moved) in enumerate(zip(tables, self.tables(), strict=True)):
            setattr(self, f"table{i}", table.to(moved.device))
        return self

    def tables(self) -> list[Tensor]:
        """Of each triple `C` [(2l₁ + 1)(2l₂ + 1), 2l₃ + 1]."""
        return [getattr(self, f"table{i}") for i in range(len(self.triples))]

    def forward(self, density: Tensor) -> Tensor:
        """density [n_atoms, (l_max + 1)², n_edge] → [n_atoms, n_features], by triple, then by channel."""
        a = [mix(density[:, degree**2 : (degree + 1) ** 2]) for degree, mix in enumerate(self.mix, 1)]
        found = []
        for (first, second, third), table in zip(self.triples, self.tables(), strict=True):
            pairs = (a[first - 1][:, :, None] * a[second - 1][:, None]).flatten(1, 2)
            coupled = table.to(pairs.dtype).T @ pairs  # [n_atoms, 2l₃ + 1, n_channels]
            found.append((coupled * a[third - 1]).sum(1))
        return torch.cat(found, -1)
