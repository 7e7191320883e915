"""How space is cut into tiles."""

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms

ALIKE = 0.1
"""Share by which the number of atoms may differ in structures that are alike."""


@dataclass(frozen=True)
class Tiles:
    """Settings of a tiled evaluation.

    Args:
        focus: width of a tile's focus box, Å; None to choose it.
        context: width of the surroundings that a tile holds beside its focus, Å, at least the model's
            `receptive_field`; None to choose it.
        max_memory: bytes that an evaluation may take beside the atoms themselves; None for half of what is available.

    Raises:
        ValueError: for lengths or a memory that are not positive.
    """

    focus: float | None = None
    context: float | None = None
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for name, unit in (("focus", " Å"), ("context", " Å"), ("max_memory", " bytes")):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}{unit}; it has to be a positive number, or None to choose it.")

    def check(self, receptive_field: float) -> None:
        """Raise ValueError where the context is narrower than the receptive field, Å."""
        if self.context is not None and self.context < receptive_field:
            raise ValueError(
                f"context is {self.context} Å, less than the model's receptive field of {receptive_field} Å: a tile "
                f"would not hold all that the energies of its focus depend on. Give at least {receptive_field} Å; "
                "`context_for` finds it for an accuracy."
            )


@dataclass(frozen=True)
class ChosenFor:
    """The structure that a choice was made for. It stays for all like it, so that energies can be compared.

    Args:
        n_atoms: its number of atoms.
        elements: its atomic numbers, each once.
    """

    n_atoms: int
    elements: tuple[int, ...]

    @staticmethod
    def of(atoms: Atoms) -> "ChosenFor":
        return ChosenFor(len(atoms), tuple(np.unique(atoms.numbers).tolist()))

    def holds(self, atoms: Atoms) -> bool:
        """Whether a structure has the same elements and nearly as many atoms."""
        other = ChosenFor.of(atoms)
        return self.elements == other.elements and abs(other.n_atoms - self.n_atoms) <= ALIKE * self.n_atoms
