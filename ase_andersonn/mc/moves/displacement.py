"""Random displacements of atoms."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ase_andersonn.mc.context import Context

from .base import Adaptive, Trial, as_indices, check_indices


@dataclass(eq=False)
class Displacement(Adaptive):
    """Displacement r' = r + step (2 u - 1), u uniform in the unit cube; a = min(1, exp(-dE / kT)).

    Coordinates fixed by FixAtoms or FixCartesian are not changed. Metropolis et al., J. Chem. Phys. 21, 1087 (1953).

    Args:
        step: largest change of each coordinate, Å; adapted during equilibration.
        n_atoms: number of atoms moved at once.
        indices: atoms that may be moved; None for all.
        target: share of accepted moves that adaptation aims at.

    Raises:
        ValueError: for an invalid step, number, target or indices.
    """

    step: float = 0.1
    n_atoms: int = 1
    indices: Any = None
    target: float = 0.4

    changes: ClassVar[frozenset[str]] = frozenset({"positions"})
    largest: ClassVar[float] = 20.0

    def __post_init__(self) -> None:
        self.check_step("Å")
        self.indices = as_indices(self.indices)
        if self.n_atoms < 1:
            raise ValueError(f"n_atoms is {self.n_atoms}; at least one atom has to move.")

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        check_indices(self.indices, len(context.atoms))
        among = context.mobile(self.indices)
        n = len(context.atoms) if among is None else len(among)
        if n < self.n_atoms and not context.count_varies:
            raise ValueError(
                f"Displacement moves {self.n_atoms} atom(s) at once, and {n} of the {len(context.atoms)} atoms are "
                "free to move. Release constraints, or give fewer n_atoms or other indices."
            )

    def propose(self, context: Context) -> Trial | None:
        """See `Move.propose`."""
        positions: NDArray[np.float64] = context.atoms.arrays["positions"]
        among = context.mobile(self.indices)
        n = len(positions) if among is None else len(among)
        if n < self.n_atoms:
            return None
        if self.n_atoms == 1:
            changed = np.array([context.pick(n)])
        else:
            changed = context.rng.choice(n, self.n_atoms, replace=False, shuffle=False)
        if among is not None:
            changed = among[changed]
        change = (2.0 * self.step) * context.rng.random((self.n_atoms, 3)) - self.step
        if context.frozen is not None:
            change[context.frozen[changed]] = 0.0
        saved = positions[changed]
        positions[changed] = saved + change
        return Trial(changed, 0.0, saved)

    def undo(self, context: Context, trial: Trial) -> None:
        """See `Move.undo`."""
        context.atoms.arrays["positions"][trial.changed] = trial.saved
