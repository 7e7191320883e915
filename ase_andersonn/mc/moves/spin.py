"""Spin flips of collinear magnetic moments."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ase_andersonn.mc.context import Context

from .base import Ints, Move, Trial, as_indices, check_indices


@dataclass(eq=False)
class SpinFlip(Move):
    """Flip of one atom's initial magnetic moment, m' = -m; a = min(1, exp(-dE / kT)).

    Moments are collinear, as in an Ising model: set them with ``atoms.set_initial_magnetic_moments``. Atoms with zero
    moment have no spin.

    Args:
        indices: atoms whose spin may flip; None for all.

    Raises:
        ValueError: for invalid indices.
    """

    indices: Any = None

    changes: ClassVar[frozenset[str]] = frozenset({"magmoms"})
    array: ClassVar[str] = "initial_magmoms"

    def __post_init__(self) -> None:
        self.indices = as_indices(self.indices)
        self._spins: tuple[int, Ints] | None = None

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        check_indices(self.indices, len(context.atoms))
        moments = context.atoms.arrays.get("initial_magmoms")
        if moments is not None and moments.ndim != 1:
            raise ValueError(
                f"the initial magnetic moments have the shape {moments.shape}; SpinFlip flips collinear ones, "
                "[n_atoms]."
            )
        if moments is None or not len(self._with_spin(context)):
            raise ValueError(
                "SpinFlip needs atoms with an initial magnetic moment, and there is none to flip; set moments of ±1 "
                "with atoms.set_initial_magnetic_moments()."
            )

    def propose(self, context: Context) -> Trial | None:
        """See `Move.propose`."""
        spins = self._with_spin(context)
        if not len(spins):
            return None
        atom = spins[context.pick(len(spins))]
        moments = context.atoms.arrays["initial_magmoms"]
        moments[atom] = -moments[atom]
        return Trial(np.array([atom]), 0.0, None)

    def undo(self, context: Context, trial: Trial) -> None:
        """See `Move.undo`."""
        moments = context.atoms.arrays["initial_magmoms"]
        moments[trial.changed] = -moments[trial.changed]

    def is_allowed(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each moment is a spin; see `sublattice.SiteMove`."""
        allowed: NDArray[np.bool_] = values != 0
        return allowed

    def sample(self, values: NDArray[Any], context: Context) -> tuple[NDArray[Any], float]:  # noqa: ARG002
        """Flipped moments, and log ratios; see `sublattice.SiteMove`."""
        return -values, 0.0

    def _with_spin(self, context: Context) -> Ints:
        """Atoms with a moment; flips do not change this set, so it is updated only if the number of atoms changes."""
        n = len(context.atoms)
        if self._spins is None or self._spins[0] != context.counted:
            moments = context.atoms.arrays["initial_magmoms"]
            among = np.arange(n) if self.indices is None else self.indices
            self._spins = (context.counted, among[moments[among] != 0])
        return self._spins[1]
