"""Moves of cell volume and shape at constant scaled positions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ase_andersonn.mc.context import Context
from ase_andersonn.mc.criteria import isobaric

from .base import Adaptive, Trial


class _CellMove(Adaptive):
    """Base of cell moves: a deformation F of cell and positions, h' = h F, r' = r F."""

    pressure: float

    changes: ClassVar[frozenset[str]] = frozenset({"positions", "cell"})
    largest: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        self.check_step("(a change of ln V or a strain)")
        if not math.isfinite(self.pressure):
            raise ValueError(
                f"the pressure is {self.pressure}; it has to be finite, in eV/Å^3 (1 GPa is {units.GPa:.6f} eV/Å^3)."
            )

    def check(self, context: Context) -> None:
        """See `Move.check`."""
        atoms, name = context.atoms, type(self).__name__
        if not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise ValueError(
                f"{name} needs a cell that is periodic in three directions; pbc is {atoms.pbc.tolist()} and the cell "
                f"{atoms.cell.array.tolist()} Å. Set both, or leave the move out."
            )
        if context.frozen is not None and context.frozen.any():
            raise ValueError(
                f"{name} moves every atom with the cell, and constraints hold {int(context.frozen.any(1).sum())} of "
                "them. Remove the constraints, or leave the move out."
            )

    def deform(self, context: Context, deformation: NDArray[np.float64], log_change: float) -> Trial:
        """Deform cell and positions in place, h' = h F, r' = r F; `log_change` is ln det F."""
        atoms = context.atoms
        positions = atoms.arrays["positions"]
        saved = (positions.copy(), atoms.cell.array.copy())
        ratio = isobaric(self.pressure, atoms.get_volume(), log_change, len(atoms), context.kT)
        atoms.cell[:] = saved[1] @ deformation
        positions[:] = saved[0] @ deformation
        return Trial(np.arange(len(atoms)), ratio, saved)

    def undo(self, context: Context, trial: Trial) -> None:
        """See `Move.undo`."""
        positions, cell = trial.saved
        context.atoms.arrays["positions"][:] = positions
        context.atoms.cell[:] = cell

    def fields(self) -> dict[str, float]:
        """See `Move.fields`."""
        return {"pressure": self.pressure}

    def log_weight(self, atoms: Atoms, temperature_K: float) -> dict[str, float]:
        """See `Move.log_weight`."""
        return {"pressure": -self.pressure * atoms.get_volume() / (units.kB * temperature_K)}


@dataclass(eq=False)
class VolumeChange(_CellMove):
    """Isotropic ln V' = ln V + step (2 u - 1); a = min(1, exp(-(dE + p dV) / kT) (V' / V)^(N + 1)).

    Samples the constant-pressure ensemble, V^N exp(-(E + p V) / kT). All atomic positions are scaled, also within
    molecules. Frenkel and Smit (2002), section 5.4.

    Args:
        pressure: p, eV/Å^3 (``ase.units.GPa``).
        step: largest change of ln V; adapted during equilibration.
        target: share of accepted moves that adaptation aims at.

    Raises:
        ValueError: for invalid numbers.
    """

    pressure: float = 0.0
    step: float = 0.02
    target: float = 0.4

    def propose(self, context: Context) -> Trial:
        """See `Move.propose`."""
        log_change = self.step * (2.0 * context.rng.random() - 1.0)
        return self.deform(context, np.diag([math.exp(log_change / 3.0)] * 3), log_change)


@dataclass(eq=False)
class CellChange(_CellMove):
    """h' = h exp(e), e symmetric with components step (2 u - 1); a = min(1, exp(-(dE + p dV) / kT) (V' / V)^(N + 1)).

    A strain and its inverse have equal probability, so the exponent is that of `VolumeChange`, and the nine components
    of the cell have the measure dh V^(-2), which gives the volume distribution at constant pressure (Martyna, Tobias
    and Klein, J. Chem. Phys. 101, 4177 (1994)). Successive strains rotate the cell slightly. The energy of a fluid does
    not depend on the shape of its cell, which would flatten without limit: use `VolumeChange` for fluids.

    Args:
        pressure: p, eV/Å^3 (``ase.units.GPa``), hydrostatic.
        step: largest strain; adapted during equilibration.
        mask: which of xx, yy, zz, yz, xz, xy may change.
        target: share of accepted moves that adaptation aims at.

    Raises:
        ValueError: for invalid numbers or an invalid mask.
    """

    pressure: float = 0.0
    step: float = 0.01
    mask: Sequence[bool | int] = (True,) * 6
    target: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = np.asarray(self.mask)
        if given.shape != (6,) or not np.isin(given, (0, 1)).all() or not given.any():
            raise ValueError(
                f"mask is {self.mask!r}; six booleans are expected, for xx, yy, zz, yz, xz, xy, not all False."
            )
        self.mask = tuple(bool(on) for on in given)

    def propose(self, context: Context) -> Trial:
        """See `Move.propose`."""
        xx, yy, zz, yz, xz, xy = np.asarray(self.mask) * self.step * (2.0 * context.rng.random(6) - 1.0)
        values, vectors = np.linalg.eigh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        return self.deform(context, (vectors * np.exp(values)) @ vectors.T, float(xx + yy + zz))
