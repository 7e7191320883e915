"""Potentials in torch-sim, whose integrators and optimisers move many structures at once.

from torch_sim.integrators import nvt_langevin
model = TorchSimModel("universal")
"""

from typing import Any

import numpy as np
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from ase_andersonn.calculator import AndersoNN

try:
    import torch_sim
    from torch_sim.models.interface import ModelInterface
except ImportError as error:
    raise ImportError("torch-sim is not installed; pip install torch-sim-atomistic") from error


class TorchSimModel(ModelInterface):  # type: ignore[misc]  # untyped where torch-sim is missing
    """An AndersoNN calculator as a model of torch-sim: all structures of a state in one batch.

    Args:
        model: as of `AndersoNN`.
        dtype: of the tensors given back; the calculator's own precision is `dtype` of `options`.
        options: other arguments of `AndersoNN`.
    """

    def __init__(self, model: Any = None, *, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        super().__init__()
        self.calculator = AndersoNN(model, **{"warm_start": False, **options})
        self._device, self._dtype = next(self.calculator.model.parameters()).device, dtype
        self._compute_stress = self._compute_forces = True

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Energies [n_systems], eV, forces [n_atoms, 3], eV/Å, and stress [n_systems, 3, 3], eV/Å³.

        The stress of structures that are not periodic in three directions is nan.
        """
        if isinstance(state, dict):
            state = torch_sim.SimState(**state, masses=torch.ones_like(state["positions"]))
        found = self.calculator.evaluate(torch_sim.io.state_to_atoms(state), stress=True)
        none = np.full(6, np.nan)
        stress = [voigt_6_to_full_3x3_stress(one.get("stress", none)) for one in found]
        values = {
            "energy": np.array([one["energy"] for one in found]),
            "forces": np.concatenate([one["forces"] for one in found]),
            "stress": np.array(stress),
        }
        return {name: torch.from_numpy(value).to(self._device, self._dtype) for name, value in values.items()}
