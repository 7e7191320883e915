"""An architecture in a file of its own, as another package would have it: the attention with another readout."""

import torch
from torch import Tensor

from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.deq_attention import DEQAttention


class ToyModel(DEQAttention):
    """`E = Σ_i [E_Z + s_Z w_Z · tanh(z_i)]`."""

    def __init__(self, config: DEQAttentionConfig) -> None:
        super().__init__(config)

    def readout(self, z: Tensor, species: Tensor) -> Tensor:
        """See `EnergyModel.readout`."""
        energies: Tensor = (self.output[species] * torch.tanh(z)).sum(-1) * self.scale[species]
        return energies
