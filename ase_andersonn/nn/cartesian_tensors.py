"""Irreducible Cartesian tensors: symmetric and traceless in all indices, a tensor of rank l in 2l + 1 numbers.

    T = Σ_m t_m B_lm,    ⟨B_lm, B_ln⟩ = δ_mn,    t_m = ⟨B_lm, T⟩

The basis is that in which the tensor of a direction, the traceless part of `u ⊗ … ⊗ u` scaled to length one, has the
components `harmonics(u)` of `angular.py`: packed numbers have the tensor's length, turn as real spherical harmonics do,
and are multiplied without the 3^l components ever being formed.

The product of ranks `l₁` and `l₂` to `l₃` contracts `(l₁ + l₂ − l₃)/2` pairs of indices, symmetrises what is left and
takes its traces off. It is scaled so that the tensors of one direction give that direction's: `Y₁(u) ∘ Y₂(u) = Y₃(u)`.
Products with an odd number of indices to contract need the antisymmetric tensor, and are no tensors but pseudotensors
under reflections; they are left out.

Tensors of ranks 0 … l_max stand one after another, channels last: [..., (l_max + 1)², n_channels].

Source: Zaverkin et al., arXiv 2405.14253 (products of irreducible Cartesian tensors in potentials).
"""

import itertools
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .spherical_harmonics import harmonics

Floats = NDArray[np.float64]
Path = tuple[int, int, int]
RANK_MAX = 3


def paths(l_max: int) -> list[Path]:
    """The products `(l₁, l₂, l₃)` that exist among ranks up to `l_max`.

    Raises:
        ValueError: if `l_max` is not in 0 … 3.
    """
    if not 0 <= l_max <= RANK_MAX:
        raise ValueError(f"l_max is {l_max}; irreducible tensors are given for ranks 0 to {RANK_MAX}.")
    ranks = range(l_max + 1)
    return [
        (first, second, third)
        for first, second, third in itertools.product(ranks, ranks, ranks)
        if abs(first - second) <= third <= first + second and (first + second - third) % 2 == 0
    ]


@cache
def basis(rank: int) -> Floats:
    """`B_lm` [2l + 1, 3, …, 3], orthonormal, symmetric and traceless.

    A homogeneous polynomial of degree l has one symmetric tensor; those of the harmonics are found from their values.
    """
    u = np.random.default_rng(0).normal(size=(16 * (rank + 1), 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    powers = np.ones((len(u), 1))
    for _ in range(rank):
        powers = (powers[:, :, None] * u[:, None]).reshape(len(u), -1)
    values = harmonics(torch.from_numpy(u), rank).numpy()[:, rank**2 :]
    tensors = np.linalg.lstsq(powers, values, rcond=None)[0].T
    tensors /= np.linalg.norm(tensors, axis=1, keepdims=True)
    found: Floats = tensors.reshape(-1, *(3,) * rank)
    return found


@cache
def product_table(path: Path) -> Floats:
    """`C` with `(x ∘ y)_k = Σ_ij C_ijk x_i y_j` [2l₁ + 1, 2l₂ + 1, 2l₃ + 1].

    Args:
        path: degrees that make a triangle, with an even sum; those of any degree, also above `RANK_MAX`.
    """
    first, second, third = path
    contracted = list(range(1, (first + second - third) // 2 + 1))
    tensors = np.tensordot(basis(first), basis(second), (contracted, contracted))
    tensors = np.moveaxis(tensors, 1 + first - len(contracted), 1)  # [2l₁ + 1, 2l₂ + 1, 3, …, 3]
    # The basis of the result is symmetric and traceless, so that projecting on it symmetrises and takes traces off.
    table = np.tensordot(tensors, basis(third), (list(range(2, third + 2)), list(range(1, third + 1))))
    up = harmonics(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device="cpu"), max(path)).numpy()
    one, two, three = (up[rank**2 : (rank + 1) ** 2] for rank in path)
    scaled: Floats = table / np.einsum("ijk,i,j,k", table, one, two, three)
    return np.where(np.abs(scaled) < 1e-12, 0.0, scaled)


@cache
def operator_norm(path: Path) -> float:
    """The largest `|x ∘ Y₂(u)|` of an `x` of length one, the same for all directions `u`.

    Args:
        path: one of `paths`.
    """
    up = harmonics(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device="cpu"), path[1]).numpy()[path[1] ** 2 :]
    return float(np.linalg.norm(np.einsum("ijk,j->ik", product_table(path), up), 2))


def unpacked(packed: Tensor, rank: int) -> Tensor:
    """The tensors of packed numbers [..., 2l + 1] → [..., 3, …, 3]."""
    tensors: Tensor = torch.tensordot(packed, torch.from_numpy(basis(rank)).to(packed), 1)
    return tensors


def packed(tensors: Tensor, rank: int) -> Tensor:
    """The symmetric, traceless part of tensors [..., 3, …, 3] → [..., 2l + 1]."""
    flat = tensors.flatten(tensors.ndim - rank) if rank else tensors[..., None]
    components: Tensor = flat @ torch.from_numpy(basis(rank).reshape(2 * rank + 1, -1).T).to(tensors)
    return components


class Product(nn.Module):
    """`(x ∘ y)_l₃ = Σ_paths w_path (x_l₁ ∘ y_l₂)_l₃`, each channel by itself.

    Args:
        l_max: highest rank of the factors and of the result.

    Attributes:
        paths: the products, in the order of their weights.
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.paths = paths(l_max)
        n = (l_max + 1) ** 2
        sizes = [2 * third + 1 for _, _, third in self.paths]
        tables, collected = np.zeros((n, n, sum(sizes))), np.zeros((sum(sizes), n))
        of_path = np.repeat(np.arange(len(sizes)), sizes)
        for path, end, size in zip(self.paths, np.cumsum(sizes), sizes, strict=True):
            first, second, third = (slice(rank**2, (rank + 1) ** 2) for rank in path)
            tables[first, second, end - size : end] = product_table(path)
            collected[end - size : end, third] = np.eye(size)
        self.tables: Tensor
        self.collected: Tensor
        self.of_path: Tensor
        self.register_buffer("tables", torch.from_numpy(tables.reshape(n * n, -1)), persistent=False)
        self.register_buffer("collected", torch.from_numpy(collected), persistent=False)
        self.register_buffer("of_path", torch.from_numpy(of_path), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Product":
        """Keep the tables in float64, whatever the precision of the rest: what single precision loses is gone."""
        tables = self.tables
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tables = tables.to(self.tables.device)
        return self

    def forward(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """The weighted products.

        Args:
            x, y: [n, n_channels, (l_max + 1)²].
            weights: [n_channels, n_paths], or with a row for each tensor [n, n_channels, n_paths].

        Returns:
            [n, n_channels, (l_max + 1)²].
        """
        products = (x[..., :, None] * y[..., None, :]).flatten(-2) @ self.tables.to(x.dtype)
        found: Tensor = (products * weights[..., self.of_path]) @ self.collected.to(x.dtype)
        return found
