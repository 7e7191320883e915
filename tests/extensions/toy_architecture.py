"""An architecture in a file of its own, as another package would have it: three methods, no directions."""

import torch
from torch import Tensor

from ase_andersonn.nn.blocks import Affine, SpeciesLinear
from ase_andersonn.nn.equilibrium_cell import CellWeights, ContractiveCell
from ase_andersonn.nn.messages import FeatureShape
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.nn.radial import bessel, envelope
from ase_andersonn.potentials.base import Embedding, EnergyModel
from ase_andersonn.potentials.energy_config import EnergyModelConfig

N_RADIAL = 6


class ToyModel(EnergyModel):
    """`E = Σ_i [E_Z + s_Z w_Z · tanh(z_i)]` with an embedding of the neighbours' distances."""

    def __init__(self, config: EnergyModelConfig) -> None:
        super().__init__(config)
        n, c = len(config.elements), config.n_channels
        self.radial, self.weight = Affine(N_RADIAL, c), SpeciesLinear(c, 2 * c, n)
        self.cell = ContractiveCell(0.7, FeatureShape(c, 0, 0))
        self.output = torch.nn.Parameter(torch.randn(n, c))

    def embed(self, near: Neighborhoods) -> Embedding:
        """See `EnergyModel.embed`."""
        r, _ = self.clamped_edges(near)
        inside = torch.where(near.mask, envelope(r, self.cutoff), 0.0)[..., None]
        gates = self.radial(bessel(r, self.cutoff, N_RADIAL)).tanh() * inside
        node = self.weight(gates.sum(1), near.species)
        return Embedding(node, node[:, :0], gates / (1.0 + inside.sum(1, keepdim=True)))

    def cell_weights(self) -> CellWeights:
        """See `EnergyModel.cell_weights`."""
        return self.cell.weights()

    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """See `EnergyModel.readout`."""
        energies: Tensor = (self.output[species] * torch.tanh(z)).sum(-1) * self.scale[species]
        return energies
