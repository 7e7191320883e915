"""Elements, cutoffs and width that every equilibrium potential of atoms has."""

import math
from dataclasses import dataclass

from ase.data import covalent_radii


@dataclass(frozen=True)
class EnergyModelConfig:
    """Elements, cutoffs and width of an equilibrium potential.

    Attributes:
        elements: atomic numbers, ascending.
        cutoff: Å.
        n_channels: width of the equilibrium features.
        cutoff_offset: Å; where given, a pair of elements has a cutoff of its own, at most `cutoff`: this plus
            `cutoff_slope` times the sum of their covalent radii. Distances are seen in units of it, so that large atoms
            have as many neighbours as small ones.
        cutoff_slope: see `cutoff_offset`.
        contact_onset: times a pair's `min_distance` distance, below which its atoms repel each other and the distance
            is clamped. At 1 the network is left to itself a little below the shortest distances of training, to which
            motion comes; 1 / 0.9 begins at these.

    Raises:
        ValueError: for elements and sizes that make no model.
    """

    elements: tuple[int, ...]
    cutoff: float = 5.0
    n_channels: int = 64
    cutoff_offset: float | None = None
    cutoff_slope: float = 0.8
    contact_onset: float = 1.0

    def __post_init__(self) -> None:
        known = len(covalent_radii)
        if not self.elements or list(self.elements) != sorted({z for z in self.elements if 0 < z < known}):
            raise ValueError(f"elements is {self.elements}; give different atomic numbers in ascending order.")
        if not 0.0 < self.cutoff < math.inf:
            raise ValueError(f"cutoff is {self.cutoff} Å; it has to be a positive number.")
        if self.n_channels < 1:
            raise ValueError(f"n_channels is {self.n_channels}; it has to be at least 1.")
        if self.cutoff_offset is not None and not (0.0 < self.cutoff_offset < math.inf and self.cutoff_slope >= 0.0):
            raise ValueError(
                f"cutoff_offset is {self.cutoff_offset} Å and cutoff_slope {self.cutoff_slope}; the first has to be a "
                "positive number, the second at least 0."
            )
        if not 0.5 <= self.contact_onset <= 2.0:
            raise ValueError(f"contact_onset is {self.contact_onset}; it has to be in 0.5 to 2.")
