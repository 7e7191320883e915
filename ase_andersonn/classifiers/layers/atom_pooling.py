"""Intensive pooling of atomic features to features of a structure.

    mean ȳ, standard deviation √(Σ (y − ȳ)² / N), weighted mean Σ e^{s_i} y_i / Σ e^{s_i}, smooth maximum ln(Σ e^{βy_i}
    / N) / β

Each is normalized by the number of atoms, so supercells have the same features.
"""

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import silu, soft_clip

FEATURE_LIMIT = 8.0
"""Soft limit of features, so that the exponentials of the smooth maximum are finite in float32."""
MAXIMUM_SHARPNESS = 2.0
"""β of the smooth maximum."""


def total(x: Tensor, system: Tensor, n_systems: int) -> Tensor:
    """Sum over the atoms of each structure, [n_atoms, n] -> [n_systems, n]."""
    return x.new_zeros(n_systems, x.shape[1]).index_add(0, system, x)


class AtomPooling(nn.Module):
    """Mean, standard deviation, attention-weighted mean and smooth maximum over the atoms of a structure.

    Args:
        n_in: features of an atom.
        n_out: number of pooled features; a multiple of `n_heads`.
        n_heads: number of softmax weights.
    """

    def __init__(self, n_in: int, n_out: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.n_features = 4 * n_out
        self.value = nn.Linear(n_in, n_out)
        self.score = nn.Linear(n_in, n_heads)

    def forward(self, x: Tensor, system: Tensor, n_per_system: Tensor) -> Tensor:
        """Pooled features [n_systems, n_features].

        Args:
            x: [n_atoms, n_in].
            system: structure of each atom [n_atoms].
            n_per_system: atoms of each structure [n_systems].
        """
        n = len(n_per_system)
        share = (1.0 / n_per_system.to(x.dtype))[:, None]
        y = soft_clip(silu(self.value(x)), FEATURE_LIMIT)
        mean = total(y, system, n) * share
        std = (total((y - mean[system]).square(), system, n) * share + 1e-4).sqrt()
        weight = soft_clip(self.score(x), FEATURE_LIMIT).exp()
        heads = (y.view(len(y), self.n_heads, -1) * weight[..., None]).flatten(1)
        norm = total(weight, system, n).repeat_interleave(y.shape[1] // self.n_heads, 1)
        highest = (total((MAXIMUM_SHARPNESS * y).exp(), system, n) * share).log() / MAXIMUM_SHARPNESS
        return torch.cat([mean, std, total(heads, system, n) / norm, highest], -1)
