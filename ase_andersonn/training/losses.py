"""Huber losses of energy, forces and stress in units of each element's force scale.

With `s_i` the scale of atom i's element and `s̄` its mean over a structure,

    energy   h(|ΔE| / (n s̄))            mean over the structures with an energy
    forces   h(|ΔF_i| / s_i)            mean over the atoms with a force
    stress   h(V ‖Δσ‖ / (n s̄))          mean over the structures with a stress

so that a soft element (Li) and a stiff one (Mo) count alike. `h(x) = x²/2δ` up to `δ`, `x − δ/2` beyond. Forces and
stress enter with their Euclidean norm: the loss does not depend on the orientation of the axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .data.targets import Systems, Targets


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses."""

    energy: float
    forces: float
    stress: float


@dataclass(frozen=True)
class LossTerms:
    """The three losses, each a scalar; 0 where nothing has the label."""

    energy: Tensor
    forces: Tensor
    stress: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """`w_E h_E + w_F h_F + w_σ h_σ`."""
        return weights.energy * self.energy + weights.forces * self.forces + weights.stress * self.stress


def huber(square: Tensor, delta: float) -> Tensor:
    """`x²/2δ` for `x ≤ δ`, `x − δ/2` beyond, given `x²`: its derivative exists at 0, where that of `x` does not."""
    inside = square <= delta * delta
    x = torch.where(inside, delta * delta, square).sqrt()
    return torch.where(inside, square / (2.0 * delta), x - 0.5 * delta)


def loss_terms(predicted: Targets, labelled: Targets, systems: Systems, scales: Tensor, delta: float) -> LossTerms:
    """The three losses of a batch.

    Args:
        predicted: predictions of the model.
        labelled: labels; nan where there is none.
        systems: the structures.
        scales: of each element, eV/Å, indexed by atomic number.
        delta: where the loss turns from square to linear.
    """
    atom_scale = scales[systems.numbers]
    system_scale = systems.mean(atom_scale) * systems.n_per_system

    known = ~labelled.energy.isnan()
    energy = (predicted.energy - labelled.energy)[known] / system_scale[known]

    known = ~labelled.forces.isnan().any(-1)
    forces = (predicted.forces - labelled.forces)[known] / atom_scale[known][:, None]

    known = ~labelled.stress.isnan().flatten(1).any(-1)
    virial_scale = (systems.volume / system_scale)[known][:, None, None]
    stress = (predicted.stress - labelled.stress)[known] * virial_scale
    return LossTerms(
        _mean(huber(energy.square(), delta)),
        _mean(huber(forces.square().sum(-1), delta)),
        _mean(huber(stress.square().sum((-1, -2)), delta)),
    )


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
