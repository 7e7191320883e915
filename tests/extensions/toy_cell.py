"""An equilibrium cell in a file of its own, as another package would have it, and a model with it."""

from typing import NamedTuple

import torch
from torch import Tensor
from toy_architecture import ToyModel

from ase_andersonn.nn.blocks import bounded
from ase_andersonn.nn.equilibrium_cell import EquilibriumCell, Injection
from ase_andersonn.nn.messages import gathered


class TanhCell(NamedTuple):
    """`f(z)_i = u_i + γ tanh(v_i + W Σ_k a_ik ∘ z_k)` with `‖W‖ ≤ 1` and `Σ_k |a_ik| ≤ 1`; see `EquilibriumCell`."""

    matrix: Tensor
    contraction: float = 0.6

    def send(self, z: Tensor) -> Tensor:
        return z

    def apply(self, z: Tensor, injection: Injection, neighbors: Tensor) -> Tensor:
        return self.linearize(z, injection, neighbors)[0]

    def linearize(self, z: Tensor, injection: Injection, neighbors: Tensor) -> tuple[Tensor, Tensor]:
        messages = (injection.gates * gathered(z, neighbors)).sum(1)
        value = torch.tanh(injection.v + messages @ self.matrix.T)
        return injection.u + self.contraction * value, self.contraction * (1.0 - value.square())

    def jvp(self, tangent: Tensor, slope: Tensor, gates: Tensor, neighbors: Tensor) -> Tensor:
        return slope * ((gates * gathered(tangent, neighbors)).sum(1) @ self.matrix.T)

    def vjp(self, cotangent: Tensor, slope: Tensor, gates_reversed: Tensor, neighbors: Tensor) -> Tensor:
        return (gates_reversed * gathered(slope * cotangent @ self.matrix, neighbors)).sum(1)

    def injection_vjp(self, cotangent: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        return slope * cotangent, slope * cotangent @ self.matrix

    def gates_vjp(self, cotangent: Tensor, sent: Tensor, gates: Tensor, neighbors: Tensor) -> Tensor:
        return cotangent[:, None] * gathered(sent, neighbors)


class TanhModel(ToyModel):
    """`ToyModel` with another cell."""

    def cell_weights(self) -> EquilibriumCell:
        return TanhCell(bounded(self.cell.out.weight))
