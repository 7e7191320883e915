"""Density of the neighbours' messages, and its rotational invariants.

    B_lm = Σ_k f(r_k) v(r_k) t_k Y_lm(k),

with the message `t_k` of the neighbour `k`, radial functions `v` of each channel and the envelope `f`. Its power
spectrum and bispectrum relate the environments of different neighbours: bodies two bonds away, of which the products
of the atom's own density would need many more factors.

Sources: NequIP, arXiv 2101.03164 (convolutions with harmonics of features of the neighbours); MACE, arXiv 2206.07697
(their products).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .blocks import Affine
from .invariants import Bispectrum, density_products
from .radial import bessel, envelope
from .spherical_harmonics import harmonics


class MessageDensity(nn.Module):
    """The density of messages, and its products.

    Args:
        cutoff: Å.
        n_radial: radial functions.
        l_max: highest degree of the harmonics.
        n_message: width of a message.
        n_pairs: channels that every channel is multiplied with in the power spectrum, see `NeighborAttention`.
        n_bispectrum: channels of the bispectrum; none where this is 0 or `l_max` below 2.

    Attributes:
        kernel: computes `forward` another way, where it is set.
    """

    def __init__(
        self, *, cutoff: float, n_radial: int, l_max: int, n_message: int, n_pairs: int, n_bispectrum: int
    ) -> None:
        super().__init__()
        self.cutoff, self.n_radial, self.l_max, self.n_pairs = cutoff, n_radial, l_max, n_pairs
        self.value = Affine(n_radial, n_message, bias=False)
        self.bispectrum = Bispectrum(n_message, n_bispectrum, l_max) if n_bispectrum and l_max > 1 else None
        self.n_features = n_pairs * (l_max + 1) * n_message
        if self.bispectrum is not None:
            self.n_features += self.bispectrum.n_features
        self.kernel: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]] | None = None

    def forward(self, r: Tensor, unit: Tensor, messages: Tensor, mask: Tensor) -> Tensor:
        """Invariant features of the atoms [n_atoms, n_features].

        Args:
            r: distances [n_atoms, n_neighbors], Å.
            unit: directions [n_atoms, n_neighbors, 3].
            messages: of the neighbours [n_atoms, n_neighbors, n_message].
            mask: true where a neighbour exists [n_atoms, n_neighbors].
        """
        if self.kernel is not None:
            return self.kernel(r, unit, messages, mask)[0]
        inside = torch.where(mask, envelope(r, self.cutoff), 0.0)
        value = self.value(bessel(r, self.cutoff, self.n_radial)) * inside[..., None] * messages
        density = harmonics(unit, self.l_max).transpose(1, 2) @ value
        return density_products(density, self.n_pairs, self.bispectrum)
