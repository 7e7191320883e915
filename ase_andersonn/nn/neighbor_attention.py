"""Multi-head self-attention among the neighbours of each atom.

Every neighbour `j` of atom `i` is a token. A token attends to all tokens `k` of the same atom with weights

    w_jk = α_k q_j v_k Σ_l b_l P_l(cos θ_jk),    α_k = f(r_k) exp(s_k) / (1 + Σ_n f(r_n) exp(s_n))

that hold the radial and species information in the score `s`, query `q` and value `v`, and the angle between the two
neighbours in Legendre polynomials. A value is any function of distance and both species or, `separable`, in each
channel a radial function times a number of the neighbour's species: what is learnt of one species' distances then
serves all. The envelope `f` stands in the numerator and in the denominator, so an atom may enter or leave the
neighbourhood without a jump. By the addition theorem `P_l(cos θ_jk) = Σ_m Y_lm(j) Y_lm(k)` the sum over `k` is taken
once for all `j`: the cost is linear in the number of neighbours, with no product of neighbours with neighbours in
memory.

Sources: EScAIP, arXiv 2410.24169 (attention over the neighbour list); Katharopoulos et al., arXiv 2006.16236 (linear
attention).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import Affine, silu
from .invariants import Bispectrum, density_products
from .messages import gathered
from .radial import bessel, envelope
from .spherical_harmonics import degrees, harmonics


class Environment(NamedTuple):
    """Tokens, density and features of each atom's neighbourhood."""

    features: Tensor
    """Invariant features of the atoms [n_atoms, n_features]."""
    density: Tensor
    """`A_lm` [n_atoms, (l_max + 1)², n_edge]."""
    token: Tensor
    """Tokens after the attention [n_atoms, n_neighbors, n_token]."""
    inside: Tensor
    """Envelopes [n_atoms, n_neighbors], 0 in padded places."""
    y: Tensor
    """Harmonics of the directions [n_atoms, n_neighbors, (l_max + 1)²]."""


Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""Pooled tokens, sums of the attention's weights, the density's products and gates, from the arguments of `forward`."""


class PairSpecies(NamedTuple):
    """What stands for the species of atoms and neighbours."""

    center: Tensor
    """Of the atoms [n_atoms, 1, n_edge]."""
    other: Tensor
    """Of their neighbours [n_atoms, n_neighbors, n_edge]."""
    factor: Tensor | None = None
    """Factors of the neighbours' values, where these are separable [n_atoms, n_neighbors, n_edge]."""


class Neighborhood(NamedTuple):
    """Features and message gates of each atom's neighbourhood, from geometry and species alone."""

    features: Tensor
    """Invariant features of the atoms [n_atoms, n_features]."""
    gates: Tensor
    """Message weights [n_atoms, n_neighbors, n_channels], with `Σ_k max_c |gates| ≤ 1` for each atom."""


class NeighborAttention(nn.Module):
    """Tokens, their self-attention, and what is pooled from them.

    Args:
        n_species: number of species; 0 where the caller gives the species of each pair (`of_pairs`).
        cutoff: Å.
        n_radial: radial functions.
        l_max: highest degree of the Legendre polynomials.
        n_edge: channels of the tokens' radial and species part; a multiple of `n_heads`.
        n_token: channels after the attention; a multiple of `n_heads`.
        n_heads: attention heads.
        n_channels: channels of the message gates.
        n_pairs: channels that every channel `c` of the density is multiplied with in the power spectrum, counted
            cyclically: `c`, `c − 1`, …
        n_bispectrum: channels of the bispectrum; none where this is 0 or `l_max` below 2.
        separable: whether a value is a radial function times a number of the neighbour's species; it needs `n_species`.

    Attributes:
        kernel: computes `forward` another way, where it is set.
    """

    def __init__(
        self,
        *,
        n_species: int,
        cutoff: float,
        n_radial: int,
        l_max: int,
        n_edge: int,
        n_token: int,
        n_heads: int,
        n_channels: int,
        n_pairs: int = 2,
        n_bispectrum: int = 0,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.cutoff, self.n_radial, self.l_max, self.n_heads, self.n_pairs = cutoff, n_radial, l_max, n_heads, n_pairs
        self.n_features = n_token + n_heads + n_pairs * (l_max + 1) * n_edge
        self.bispectrum = Bispectrum(n_edge, n_bispectrum, l_max) if n_bispectrum and l_max > 1 else None
        if self.bispectrum is not None:
            self.n_features += self.bispectrum.n_features
        self.separable = separable
        if n_species:
            self.center = nn.Parameter(0.5 * torch.randn(n_species, n_edge))
            self.other = nn.Parameter(0.5 * torch.randn(n_species, n_edge))
            if separable:
                self.factor = nn.Parameter(torch.randn(n_species, n_edge))
        self.radial = Affine(n_radial, n_edge, bias=False)
        self.score = Affine(n_edge, n_heads)
        self.value = Affine(n_radial, n_edge, bias=False) if separable else Affine(n_edge, n_edge)
        self.query = Affine(n_edge, n_token)
        self.angular = nn.Parameter(torch.randn(l_max + 1, n_token))
        self.attended = Affine(n_token, n_token, bias=False)
        self.direct = Affine(n_edge, n_token)
        self.gate = Affine(n_token, n_channels)
        self.weight = Affine(n_token, 1)
        self.kernel: Kernel | None = None
        self.degree: Tensor
        self.register_buffer("degree", torch.tensor(degrees(l_max)), persistent=False)

    def forward(self, r: Tensor, unit: Tensor, species: Tensor, neighbor_species: Tensor, mask: Tensor) -> Neighborhood:
        """The neighbourhood of each atom.

        Args:
            r: distances [n_atoms, n_neighbors], Å.
            unit: directions [n_atoms, n_neighbors, 3].
            species: index of each atom's species [n_atoms].
            neighbor_species: of its neighbours [n_atoms, n_neighbors].
            mask: true where a neighbour exists [n_atoms, n_neighbors].
        """
        if self.kernel is None:
            return self.of_pairs(r, unit, self.pair_species(species, neighbor_species), mask)
        pooled, total, products, gates = self.kernel(r, unit, species, neighbor_species, mask)
        return Neighborhood(torch.cat([pooled, total.log1p(), products], -1), gates)

    def pair_species(self, species: Tensor, neighbor_species: Tensor) -> PairSpecies:
        """What has been learnt of the species; arguments as in `forward`."""
        factor = gathered(self.factor, neighbor_species) if self.separable else None
        return PairSpecies(self.center[species][:, None], gathered(self.other, neighbor_species), factor)

    def of_pairs(self, r: Tensor, unit: Tensor, species: PairSpecies, mask: Tensor) -> Neighborhood:
        """The same, from what stands for the species; arguments as in `forward`."""
        environment = self.environment(r, unit, species, mask)
        return Neighborhood(environment.features, self.message_gates(environment.token, environment.inside))

    def environment(self, r: Tensor, unit: Tensor, species: PairSpecies, mask: Tensor) -> Environment:
        """Tokens, their attention, and the atoms' features; arguments as in `of_pairs`."""
        inside = torch.where(mask, envelope(r, self.cutoff), 0.0)
        y = harmonics(unit, self.l_max)
        radial = bessel(r, self.cutoff, self.n_radial)
        x = silu(self.radial(radial) + species.center + species.other)

        alpha, total = self.attention_weights(x, inside)
        value = self.value(radial) * species.factor if self.separable else self.value(x)
        density = self.density(value, y, alpha)
        token = silu(self.attended(self.query(x) * self.attend(density, y)) + self.direct(x))

        pooled = self.spread(alpha, token).sum(1)
        return Environment(self.features(pooled, total, density), density, token, inside, y)

    def features(self, pooled: Tensor, total: Tensor, density: Tensor) -> Tensor:
        """Invariant features of the atoms, from pooled tokens, sums of the attention's weights, and the density."""
        products = density_products(density, self.n_pairs, self.bispectrum)
        return torch.cat([pooled, total.log1p(), products], -1)

    def attention_weights(self, x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """`α_k = f_k exp(s_k) / (1 + Σ f exp(s))` [n_atoms, n_neighbors, n_heads], and the sum [n_atoms, n_heads]."""
        weight = (2.0 * self.score(x).tanh()).exp() * inside[..., None]
        total = weight.sum(1)
        return weight / (1.0 + total)[:, None], total

    def density(self, value: Tensor, y: Tensor, alpha: Tensor) -> Tensor:
        """`A_lm = Σ_k α_k v_k Y_lm(k)` [n_atoms, (l_max + 1)², n_edge]."""
        return y.transpose(1, 2) @ self.spread(alpha, value)

    def attend(self, density: Tensor, y: Tensor) -> Tensor:
        """`Σ_k α_k v_k Σ_l b_l P_l(cos θ_jk)` for every token `j`, [n_atoms, n_neighbors, n_token]."""
        n = self.angular.shape[1]
        wide = density.repeat(1, 1, -(-n // density.shape[2]))[..., :n] * self.angular[self.degree]
        return y @ wide

    def message_gates(self, token: Tensor, inside: Tensor) -> Tensor:
        """`a_k tanh(g_k)` [n_atoms, n_neighbors, n_channels]."""
        gates: Tensor = self.gate(token).tanh() * self.message_weights(token, inside)
        return gates

    def message_weights(self, token: Tensor, inside: Tensor) -> Tensor:
        """`a_k = f_k exp(w_k) / (1 + Σ f exp(w))` [n_atoms, n_neighbors, 1]."""
        weight: Tensor = (2.0 * self.weight(token).tanh()).exp() * inside[..., None]
        return weight / (1.0 + weight.sum(1, keepdim=True))

    def spread(self, alpha: Tensor, x: Tensor) -> Tensor:
        """Each head's weight times the channels that belong to it."""
        n_atoms, n_neighbors, n = x.shape
        return (x.view(n_atoms, n_neighbors, self.n_heads, -1) * alpha[..., None]).reshape(n_atoms, n_neighbors, n)
