"""Products of densities that no rotation changes: the power spectrum, and the bispectrum.

The power spectrum `Σ_m A_lm A_lm` depends on angles between two neighbours alone; environments that differ in how three
of them stand may have the same. The products of three densities to a number are the next invariants. Those of an even
sum of degrees are no pseudoscalars; what has a degree 0 in it is a power spectrum times a number, and is left out.

Sources: Bartók, Kondor and Csányi, arXiv 1209.3140 (bispectrum); Drautz, Phys. Rev. B 99, 014104 (2019) (products of
densities as an expansion in body orders); Pozdnyakov et al., arXiv 2001.11696 (environments of one power spectrum).
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .blocks import Affine
from .cartesian_tensors import Path, product_table


def power_spectrum(density: Tensor, n_pairs: int) -> Tensor:
    """`Σ_m A_lmc A_lm,c−k` for k = 0 … n_pairs − 1.

    The density is [n_atoms, (l_max + 1)², n_channels], the result [n_atoms, (l_max + 1) n_pairs n_channels] by degree,
    then by k, then by channel.
    """
    product = torch.cat([density * density.roll(k, -1) for k in range(n_pairs)], -1)
    parts = torch.split(product, [2 * degree + 1 for degree in range(math.isqrt(density.shape[1]))], 1)
    return torch.cat([part.sum(1) for part in parts], -1)


def triples(l_max: int) -> list[Path]:
    """Degrees `l₁ ≤ l₂ ≤ l₃` of the products."""
    return [
        (first, second, third)
        for first, second, third in itertools.combinations_with_replacement(range(1, l_max + 1), 3)
        if third <= first + second and (first + second + third) % 2 == 0
    ]


def by_pairs(l_max: int) -> dict[tuple[int, int], list[int]]:
    """The `triples` as pairs of degrees, each with the degrees that it is coupled to.

    A product of three is the same whichever two come first. Two that are alike are a pair, as are those beside the
    highest even degree of three that differ: few pairs, multiplied once each, serve all triples.
    """
    pairs: dict[tuple[int, int], list[int]] = {}
    for first, second, third in triples(l_max):
        if first == second or second == third:
            pairs.setdefault((second, second), []).append(third if first == second else first)
        else:
            last = max(degree for degree in (first, second, third) if degree % 2 == 0)
            one, two = sorted({first, second, third} - {last})
            pairs.setdefault((one, two), []).append(last)
    return pairs


class Coupling(nn.Module):
    """`(A_l₁ ∘ A_l₂)_l₃ = Σ_ij C_ijk A_l₁i A_l₂j` of one pair of degrees for several `l₃`.

    Args:
        pair: `l₁`, `l₂`.
        coupled: the degrees `l₃`.
    """

    def __init__(self, pair: tuple[int, int], coupled: Sequence[int]) -> None:
        super().__init__()
        self.sizes = [2 * degree + 1 for degree in coupled]
        table = np.concatenate([product_table((*pair, third)) for third in coupled], -1)
        if pair[0] == pair[1]:  # each product of two components once
            one, two = np.triu_indices(len(table))
            table = np.where((one == two)[:, None], 1.0, 2.0) * table[one, two]
        else:
            one, two = (index.flatten() for index in np.indices(table.shape[:2]))
            table = table[one, two]
        self.table: Tensor
        self.one: Tensor
        self.two: Tensor
        self.register_buffer("table", torch.from_numpy(table.T.copy()), persistent=False)
        self.register_buffer("one", torch.from_numpy(one.copy()), persistent=False)
        self.register_buffer("two", torch.from_numpy(two.copy()), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Coupling":
        """Keep the table in float64, whatever the precision of the rest: what single precision loses is gone."""
        table = self.table
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.table = table.to(self.table.device)
        return self

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Components of `l₁` and `l₂` [n_atoms, 2l + 1, n_channels] → for each `l₃` [n_atoms, 2l₃ + 1, n_channels]."""
        products = first.index_select(1, self.one) * second.index_select(1, self.two)
        coupled: tuple[Tensor, ...] = torch.split(self.table.to(products.dtype) @ products, self.sizes, 1)
        return coupled


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
        self.pairs = by_pairs(l_max)
        self.couplings = nn.ModuleList([Coupling(pair, coupled) for pair, coupled in self.pairs.items()])

    def forward(self, density: Tensor) -> Tensor:
        """density [n_atoms, (l_max + 1)², n_edge] → [n_atoms, n_features], by triple, then by channel."""
        a = [mix(density[:, degree**2 : (degree + 1) ** 2]) for degree, mix in enumerate(self.mix, 1)]
        found = {}
        for ((first, second), thirds), coupling in zip(self.pairs.items(), self.couplings, strict=True):
            for third, coupled in zip(thirds, coupling(a[first - 1], a[second - 1]), strict=True):
                found[tuple(sorted((first, second, third)))] = (coupled * a[third - 1]).sum(1)
        return torch.cat([found[degrees] for degrees in self.triples], -1)


def density_products(density: Tensor, n_pairs: int, bispectrum: Bispectrum | None) -> Tensor:
    """Power spectrum and bispectrum, if any, of a density [n_atoms, (l_max + 1)², n_channels], side by side."""
    power = power_spectrum(density, n_pairs)
    return power if bispectrum is None else torch.cat([power, bispectrum(density)], -1)
