"""Distances, directions and pair energies in C++, with their derivatives in the edge vectors."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ase_andersonn.nn.zbl import BOHR, COULOMB, EARLIER
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.short_range import DENSITY_ONSET, DENSITY_PUSH, PUSH

from .kernel import Kernel, call


class _Geometry(Kernel):
    """What the edge vectors give by themselves: a kernel of `vectors, species, neighbor_species, mask`.

    Args:
        model: the potential.
    """

    has_gradient: ClassVar[tuple[int, ...]] = (0,)

    def __init__(self, model: DEQAttention) -> None:
        super().__init__()
        self.model = model

    def sources(self) -> Iterable[Tensor]:
        """See `Kernel.sources`."""
        m = self.model
        return m.min_distance, m.bond, m.charge, m.cutoff_ratio, m.max_density

    def make_weights(self, dtype: torch.dtype) -> Any:
        """Quantities of each pair of species, in the order of geometry.cpp's `Column`, and largest local densities."""
        m = self.model
        every = torch.arange(len(m.elements))
        onset, clamp, deep = m.contacts((every[:, None], every))
        charge, powers = m.charge, m.charge**0.23
        scale = m.cutoff_ratio if m.config.cutoff_offset is not None else torch.ones_like(onset)
        screening = (powers[:, None] + powers) * (1.0 / (0.8854 * BOHR))
        charges = COULOMB * charge[:, None] * charge
        table = torch.stack([onset, clamp, clamp - EARLIER, PUSH * deep, scale, charges, screening], -1)
        return table.to(dtype).contiguous(), (DENSITY_ONSET * m.max_density).to(dtype).contiguous()

    def run(self, weights: tuple[Tensor, Tensor], inputs: tuple[Tensor, ...], *others: Tensor | None) -> None:
        """Fill the outputs `r, unit, pair`, or from cotangents of these the gradient."""
        table, max_density = weights
        sizes = torch.get_num_threads(), *inputs[0].shape[:2]
        first = len(table), float(self.model.cutoff), DENSITY_PUSH, table, max_density, *sizes
        call("geometry", *inputs, *others, first=first)


class DistanceKernel(_Geometry):
    """`DEQAttention.lengths` and directions."""

    def values(self, weights: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.values`: distances as the network is given them, and directions."""
        found = torch.empty_like(inputs[0][..., 0]), torch.empty_like(inputs[0])
        self.run(weights, inputs, *found, *[None] * 5)
        return found

    def gradients(self, weights: Any, inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.gradients`."""
        found = torch.empty_like(inputs[0])
        self.run(weights, inputs, *[None] * 3, *cotangents, None, found)
        return (found,)


class PairEnergyKernel(_Geometry):
    """`DEQAttention.pair_energies`."""

    def values(self, weights: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.values`."""
        found = inputs[0].new_empty(len(inputs[0]))
        self.run(weights, inputs, None, None, found, *[None] * 4)
        return (found,)

    def gradients(self, weights: Any, inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See `Kernel.gradients`."""
        found = torch.empty_like(inputs[0])
        self.run(weights, inputs, *[None] * 5, *cotangents, found)
        return (found,)
