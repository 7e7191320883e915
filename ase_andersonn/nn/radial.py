"""Radial functions of interatomic distances, all smooth (C2) at the cutoff."""

import math

import torch
from torch import Tensor

CLAMP_FRACTION = 0.8
"""Share of a pair's `min_distance` distance below which the network gets a constant distance."""


def distances(vectors: Tensor, mask: Tensor) -> Tensor:
    """`r = |d|`, and 1 Å in padded places, where a zero vector would have no derivative.

    Args:
        vectors: edge vectors [..., 3], Å.
        mask: true where an edge exists [...].

    Returns:
        distances [...], Å.
    """
    return torch.where(mask, vectors.square().sum(-1), 1.0).sqrt()


def envelope(r: Tensor, cutoff: float | Tensor) -> Tensor:
    """`1 − 10x³ + 15x⁴ − 6x⁵` with `x = r / cutoff`, and 0 beyond: two continuous derivatives at the cutoff.

    Args:
        r: distances [...], Å.
        cutoff: Å, a number or a tensor that broadcasts with `r`.
    """
    x = (r / cutoff).clamp(max=1.0)
    return 1.0 + x * x * x * (x * (15.0 - 6.0 * x) - 10.0)


def local_density(r: Tensor, mask: Tensor, cutoff: float) -> Tensor:
    """`Σ_k (1 − r_k²/r_c²)³` [n_atoms]: how densely an atom is surrounded, with two derivatives at the cutoff.

    Args:
        r: distances [n_atoms, n_neighbors], Å.
        mask: true where a neighbour exists.
        cutoff: r_c, Å.
    """
    inside = (1.0 - (r * (1.0 / cutoff)).square()).clamp(min=0.0)
    return torch.where(mask, inside * inside * inside, 0.0).sum(1)


def clamped_distance(r: Tensor, min_distance: Tensor, clamp_fraction: float | Tensor = CLAMP_FRACTION) -> Tensor:
    """`r` down to `min_distance`, then bending over to a constant below `clamp_fraction · min_distance`.

    With `t = (r/min_distance − b) / (1 − b)`, b = `clamp_fraction`, the slope is the smooth step `t³ (10 − 15t + 6t²)`,
    so that the function has three continuous derivatives. A network that is given it feels no pull between atoms far
    closer than it ever saw.

    Args:
        r: distances [...], Å.
        min_distance: distance of the pair down to which `r` is left as it is [...], Å.
        clamp_fraction: share of it below which the result is constant, a number below 1 or a tensor that broadcasts
            with `r`.
    """
    t = ((r / min_distance - clamp_fraction) / (1.0 - clamp_fraction)).clamp(min=0.0, max=1.0)
    bent = 0.5 * (1.0 + clamp_fraction) + (1.0 - clamp_fraction) * t * t * t * t * (2.5 + t * (t - 3.0))
    return torch.where(r < min_distance, min_distance * bent, r)


def bessel(r: Tensor, cutoff: float, n: int) -> Tensor:
    """`√(2/r_c) sin(kπ r/r_c) / r` for k = 1 … n: the spherical Bessel functions j₀ of a sphere of radius r_c.

    The sines come from the recurrence `sin((k+1)θ) = 2 cos θ sin kθ − sin((k−1)θ)`.
    Source: DimeNet, arXiv 2003.03123, eq. 7.

    Args:
        r: distances [...], Å, positive.
        cutoff: Å.
        n: number of functions.

    Returns:
        [..., n], Å^(-1/2) per Å.
    """
    theta = r * (math.pi / cutoff)
    twice_cos = 2.0 * theta.cos()
    previous, current = torch.zeros_like(theta), theta.sin()
    sines = [current]
    for _ in range(n - 1):
        previous, current = current, twice_cos * current - previous
        sines.append(current)
    return torch.stack(sines, -1) * (math.sqrt(2.0 / cutoff) / r)[..., None]
