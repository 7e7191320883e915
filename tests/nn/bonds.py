"""Bonds whose operators are at their bound, for cells and messages to be tried on."""

import torch

from ase_andersonn.nn.messages import FeatureShape
from ase_andersonn.nn.spherical_harmonics import harmonics

SCALARS, TENSORS = 4, 2
RANKS = [0, 1, 2, 3]


def shape_of(rank: int) -> FeatureShape:
    return FeatureShape(SCALARS, TENSORS if rank else 0, rank)


def random_bonds(shape: FeatureShape, u: torch.Tensor, seed: int) -> torch.Tensor:
    """Gates at their bound for bonds along `u` [n, k, 3], each with an α of 1/k."""
    generator = torch.Generator().manual_seed(seed)
    n, k, rank, c = *u.shape[:2], shape.l_max, shape.n_tensors

    def signs(*sizes: int) -> torch.Tensor:
        return torch.randn(n, k, *sizes, dtype=torch.float64, generator=generator).sign()

    if not rank:
        return signs(shape.n_scalars) / k
    share = torch.rand(c, dtype=torch.float64, generator=generator)
    unit = torch.randn(2, n, k, rank + 1, c, dtype=torch.float64, generator=generator)
    emit, read = unit / unit.norm(dim=-2, keepdim=True)
    parts = [signs(shape.n_scalars), share * signs(rank, c), (1 - share) * emit]
    weighted = torch.cat([part.flatten(2) for part in parts], -1) / k
    return torch.cat([weighted, read.flatten(2), harmonics(u, rank)[..., 1:]], -1)


def directions(*shape: int, seed: int) -> torch.Tensor:
    u = torch.randn(*shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return u / u.norm(dim=-1, keepdim=True)
