"""Labels and predictions of a batch as tensors, nan where a structure has none."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Energies, forces and stresses, labelled or predicted; nan where there is none.

    Attributes:
        energy: [n_systems], eV, float64.
        forces: [n_atoms, 3], eV/Å.
        stress: [n_systems, 3, 3], eV/Å³.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor


@dataclass(frozen=True)
class Systems:
    """Data of the structures that losses and errors need.

    Attributes:
        numbers: [n_atoms].
        system: structure of each atom [n_atoms], sorted.
        n_per_system: [n_systems].
        volume: [n_systems], Å³; nan where not periodic in three directions.
    """

    numbers: Tensor
    system: Tensor
    n_per_system: Tensor
    volume: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the atoms of each structure: [n_atoms] → [n_systems]."""
        total = values.new_zeros(len(self.n_per_system)).index_add(0, self.system, values)
        return total / self.n_per_system


def concatenate(parts: Sequence[tuple[Targets, Targets, Systems]]) -> tuple[Targets, Targets, Systems]:
    """Predicted targets, labels and structures of several batches as those of one."""
    predicted, labelled, systems = zip(*parts, strict=True)
    return _join_targets(predicted), _join_targets(labelled), _join_systems(systems)


def _join_targets(parts: Sequence[Targets]) -> Targets:
    return Targets(
        torch.cat([p.energy for p in parts]), torch.cat([p.forces for p in parts]), torch.cat([p.stress for p in parts])
    )


def _join_systems(parts: Sequence[Systems]) -> Systems:
    n_per_system = torch.cat([p.n_per_system for p in parts])
    index = torch.arange(len(n_per_system), device=n_per_system.device)
    return Systems(
        torch.cat([p.numbers for p in parts]),
        index.repeat_interleave(n_per_system),
        n_per_system,
        torch.cat([p.volume for p in parts]),
    )
