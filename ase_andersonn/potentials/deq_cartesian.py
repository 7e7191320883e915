"""The equivariant potential: many-body products of irreducible Cartesian tensors feeding a cell that keeps directions.

Beside the scalars of `deq_attention.py` every atom has tensors of ranks 1 … `rank`. From geometry alone come the
density `A_l` of its neighbours and its products `A ∘ A`, `(A ∘ A) ∘ A`; what the neighbours' own features tell comes
through the bonds (`nn/messages.py`), until all are at their equilibrium.

Source: Zaverkin et al., arXiv 2405.14253 (products of irreducible Cartesian tensors in potentials).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_andersonn.nn.blocks import Affine, SpeciesLinear
from ase_andersonn.nn.cartesian_tensors import RANK_MAX, Product
from ase_andersonn.nn.irreps import join, split
from ase_andersonn.nn.messages import FeatureShape
from ase_andersonn.nn.neighbor_attention import Environment
from ase_andersonn.nn.neighborhoods import Neighborhoods

from .attention_config import DEQAttentionConfig
from .base import Embedding
from .injection_network import InjectionNetwork
from .moments import CLIP, STD_FLOOR, Moments, standardized

CORRELATION_MAX = 3


@dataclass(frozen=True)
class DEQCartesianConfig(DEQAttentionConfig):
    """Sizes of a DEQ-Cartesian potential; those of `DEQAttentionConfig`, without a bispectrum where none is asked for
    (the products of `correlation` 3 hold one up to `rank`), nothing told before the equilibrium (the tensors carry
    directions in it), and

    Attributes:
        rank: highest rank of the tensors, 1 to 3 and at most `l_max`.
        n_tensors: tensors of each rank from 1 on.
        n_products: channels of the density's products.
        correlation: factors in a product, 1 to 3; a product of n correlates an atom with n neighbours.

    Raises:
        ValueError: for elements and sizes that make no model.
    """

    n_bispectrum: int = 0
    n_message: int = 0
    rank: int = 2
    n_tensors: int = 16
    n_products: int = 16
    correlation: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rank <= min(RANK_MAX, self.l_max):
            raise ValueError(
                f"rank is {self.rank}; it has to be in 1 to {min(RANK_MAX, self.l_max)}, l_max at most. Without "
                "tensors the model is a DEQAttention."
            )
        if not 1 <= self.correlation <= CORRELATION_MAX:
            raise ValueError(f"correlation is {self.correlation}; it has to be in 1 to {CORRELATION_MAX}.")
        if self.n_message:
            raise ValueError(f"n_message is {self.n_message}; in this model directions are carried by the tensors: 0.")
        for name in ("n_tensors", "n_products"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be at least 1.")


class DEQCartesian(InjectionNetwork):
    """`E = Σ_i [E_Z + s_Z readout(z_i) + ZBL_i]` with `z = f(z, x)` of scalars and tensors.

    Args:
        config: sizes and elements.
    """

    config: DEQCartesianConfig

    def __init__(self, config: DEQCartesianConfig) -> None:
        n_species, c, rank, n = len(config.elements), config.n_channels, config.rank, config.n_tensors
        super().__init__(config, FeatureShape(c, n, rank))
        self.make_cell(c + rank * n)
        self.products = nn.ModuleList([WeightedProduct(rank, config.n_products) for _ in range(config.correlation - 1)])
        self.density = nn.ModuleList([Affine(config.n_edge, config.n_products, bias=False) for _ in range(rank + 1)])
        self.coefficients = Affine(config.n_token, self.shape.n_coefficients - c)
        self.carried = nn.Parameter(torch.zeros(n))
        n_found, n_scalars = config.correlation * config.n_products, max(config.correlation - 1, 1) * config.n_products
        self.first_products = nn.Linear(n_scalars, config.n_hidden, bias=False)
        self.tensors = nn.ModuleList([Affine(n_found, 2 * n, bias=False) for _ in range(rank)])
        self.factors = SpeciesLinear(config.n_hidden, 2 * n * rank, n_species)
        self.readout_tensors = nn.ModuleList([Affine(n, n, bias=False) for _ in range(rank)])
        self.product_mean: Tensor
        self.product_std: Tensor
        self.tensor_rms: Tensor
        self.register_buffer("product_mean", torch.zeros(n_species, n_scalars))
        self.register_buffer("product_std", torch.ones(n_species, n_scalars))
        self.register_buffer("tensor_rms", torch.ones(n_species, rank, n_found))

    def embed(self, near: Neighborhoods) -> Embedding:
        """See `EnergyModel.embed`; there are no messages before the equilibrium."""
        species, environment = near.species, self.environment(near)
        scalars, tensors = self.many_body(environment.density)
        x = standardized(environment.features, self.feature_mean[species], self.feature_std[species])
        y = standardized(scalars, self.product_mean[species], self.product_std[species])
        x, u, v = self.injected(self.injection[0](x, species) + self.first_products(y), species)
        factors = self.factors(x, species).chunk(self.shape.l_max, -1)
        mixed = [
            mix(_shortened(t / tensor_rms[:, None])) * factor[:, None]
            for t, tensor_rms, mix, factor in zip(
                tensors, self.tensor_rms[species].unbind(1), self.tensors, factors, strict=True
            )
        ]
        us, vs = zip((u, v), *(part.chunk(2, -1) for part in mixed), strict=True)
        node = torch.cat([join(us), join(vs)], -1)
        return Embedding(node, node[:, :0], self.gates(environment))

    def many_body(self, density: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The products' scalars [n_atoms, n_scalars]; of each rank density and products [n_atoms, 2l + 1, n_found].

        Without products the scalars are those of the density.
        """
        rank = self.shape.l_max
        sizes = [2 * degree + 1 for degree in range(rank + 1)]
        parts = density[:, : (rank + 1) ** 2].split(sizes, 1)
        single = torch.cat([mix(part) for mix, part in zip(self.density, parts, strict=True)], 1).transpose(1, 2)
        found = [single]
        for product in self.products:
            found.append(product(found[-1], single))
        scalars = torch.cat([x[..., 0] for x in found[1:] or found], -1)
        return scalars, list(torch.cat(found, 1).transpose(1, 2).split(sizes, 1)[1:])

    def gates(self, environment: Environment) -> Tensor:
        """The coefficients of the bonds, see `nn/messages.py` [n_atoms, n_neighbors, n_gates]."""
        alpha = self.attention.message_weights(environment.token, environment.inside)
        rank, n = self.shape.l_max, self.shape.n_tensors
        carry, emit, read = (
            self.coefficients(environment.token).tanh().split([rank * n, (rank + 1) * n, (rank + 1) * n], -1)
        )
        share = self.carried.sigmoid()
        norm = (rank + 1) ** -0.5
        return torch.cat(
            [
                alpha * self.attention.gate(environment.token).tanh(),
                alpha * share.repeat(rank) * carry,
                alpha * ((1.0 - share) * norm).repeat(rank + 1) * emit,
                norm * read,
                environment.y[..., 1 : (rank + 1) ** 2],
            ],
            -1,
        )

    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """`s_Z (w_Z · silu(W [z₀ ; √(1 + |P_l z_l|²) − 1]) + w'_Z · z₀)` [n_rows], eV."""
        scalars, *tensors = split(z, self.shape.n_scalars, self.shape.l_max)
        squares = [mix(t).square().sum(-2) for mix, t in zip(self.readout_tensors, tensors, strict=True)]
        lengths = [(1.0 + square).sqrt() - 1.0 for square in squares]
        return self.read(self.hidden(torch.cat([scalars, *lengths], -1), species), scalars, species)

    def measured(self, near: Neighborhoods) -> tuple[Tensor, ...]:
        """See `InjectionNetwork.measured`; also the products' scalars and the squared lengths of the tensors."""
        environment = self.environment(near)
        scalars, tensors = self.many_body(environment.density)
        return environment.features, scalars, torch.stack([t.square().sum(1) for t in tensors], 1)

    def set_units(self, features: Moments, *products: Moments) -> None:
        """See `InjectionNetwork.set_units`; products' scalars [n_atoms, n_scalars], squares [n_atoms, rank,
        n_found].
        """
        super().set_units(features)
        scalars, squares = products
        self.product_mean.copy_(scalars.mean), self.product_std.copy_(scalars.std)
        self.tensor_rms.copy_(squares.mean.sqrt().view_as(self.tensor_rms) + STD_FLOOR)


class WeightedProduct(nn.Module):
    """`Σ_paths w_path (x ∘ y)_path` with weights to be learnt, each channel by itself.

    Args:
        rank: highest rank of the factors and of the result.
        n_channels: channels of both.
    """

    def __init__(self, rank: int, n_channels: int) -> None:
        super().__init__()
        self.product = Product(rank)
        self.weight = nn.Parameter(torch.randn(n_channels, len(self.product.paths)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Factors and result are [n_atoms, n_channels, (rank + 1)²]."""
        found: Tensor = self.product(x, y, self.weight)
        return found


def _shortened(tensors: Tensor) -> Tensor:
    """`t / √(1 + |t|²/limit²)` [n, 2l + 1, n_channels]: unknown environments stay within bounds."""
    return tensors * (1.0 + tensors.square().sum(1, keepdim=True) / CLIP**2).rsqrt()
