"""Settings of the division into tiles."""

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms

ATOM_COUNT_TOLERANCE = 0.1
"""Largest relative difference in the number of atoms of similar structures."""


@dataclass(frozen=True)
class Tiles:
    """Settings of a tiled evaluation.

    Args:
        focus: width of a tile's focus box, Å; None to choose it.
        context: width of the buffer around the focus, Å, at least the model's `receptive_field`; None to choose it.
        max_memory: bytes that an evaluation may take beside the atoms themselves; None for half of what is available.

    Raises:
        ValueError: if a length or the memory is not positive.
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
        """Raise ValueError if the context is smaller than the receptive field, Å."""
        if self.context is not None and self.context < receptive_field:
            raise ValueError(
                f"context is {self.context} Å, less than the model's receptive field of {receptive_field} Å: a tile "
                "would not contain all atoms that the energies of its focus depend on. Give at least "
                f"{receptive_field} Å; `context_for` gives the context for an accuracy."
            )


@dataclass(frozen=True)
class ChosenFor:
    """Structure for which a choice was made. The choice is kept for similar ones, so that energies are comparable.

    Args:
        n_atoms: number of atoms.
        elements: atomic numbers, each once.
    """

    n_atoms: int
    elements: tuple[int, ...]

    @staticmethod
    def of(atoms: Atoms) -> "ChosenFor":
        return ChosenFor(len(atoms), tuple(np.unique(atoms.numbers).tolist()))

    def matches(self, atoms: Atoms) -> bool:
        """Whether a structure is similar: the same elements and nearly the same number of atoms."""
        other = ChosenFor.of(atoms)
        difference = abs(other.n_atoms - self.n_atoms)
        return self.elements == other.elements and difference <= ATOM_COUNT_TOLERANCE * self.n_atoms
