"""What a calculator is made of: a potential holds the weights, an evaluator applies them to structures."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, all_changes
from numpy.typing import NDArray
from torch import nn

from ase_andersonn.backends import CompileMode

ON_THE_WAY = ("ase_andersonn", "ase", "torch", "contextlib")
"""Packages between a script and a warning; decorators are among the callers."""
ROUND_OFF = 1e-13
"""eV/atom: no energy is known better than this."""


class ConvergenceError(CalculationFailed):
    """A fixed point was not reached; nothing is returned."""


def warn_caller(text: str) -> None:
    """A UserWarning at the line that asked for the calculation: the nearest one outside of this package and ASE."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ON_THE_WAY:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def warn_of_error(error: float, tol: float) -> None:
    """Say so where residuals are as small as the precision allows, and the energy's error is not."""
    if error > max(tol, ROUND_OFF):
        warn_caller(
            # The same text each time, so that a long run is told once.
            f"the estimated error of the energy, diagnostics['energy_error'], is above the tolerance of {tol:.1e} "
            "eV/atom with residuals as small as the precision allows: ask for a larger tol, or for dtype='float64'.",
        )


class Potential(nn.Module):
    """A network that gives structures an energy.

    Attributes:
        config: the config dataclass it was made from.
        elements: atomic numbers it knows, ascending.
        card: the model card, where it came from a file.
        reads_magmoms: whether its energy depends on the initial magnetic moments.
        optional_tensors: groups of names of tensors; of each a file holds all or none.
    """

    config: Any
    elements: tuple[int, ...]
    card: dict[str, Any]
    reads_magmoms = False
    optional_tensors: tuple[tuple[str, ...], ...] = ()

    def absent_tensors(self) -> tuple[str, ...]:
        """Names of the optional tensors that say nothing yet, so that a file need not hold them."""
        return ()


@dataclass(frozen=True)
class Settings:
    """How a calculator wants its potential applied; see `AndersoNN` for the meaning of each."""

    device: torch.device
    dtype: torch.dtype
    tol: float = 1e-6
    warm_start: bool = True
    skin: float = 0.5
    compile: CompileMode = "auto"
    solver: str = "Anderson"
    optimize: bool = False


class Evaluator(ABC):
    """Applies one potential to one structure after another.

    Attributes:
        diagnostics: what the last call cost.
    """

    diagnostics: dict[str, Any]

    @abstractmethod
    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:
        """ASE's results: `energy`, `free_energy`, `energies` and, where asked for, `forces`, `stress`, `stresses`.

        Args:
            atoms: the structure; nothing of it is changed or kept.
            forces: whether forces are wanted.
            stress: whether stress is wanted; never for a structure that is not periodic in three directions.
            changes: what ASE found changed since the last call.

        Raises:
            ValueError: for a structure without a meaning.
            CalculationFailed: where there is no result to trust.
        """

    def calculate_many(
        self,
        structures: Sequence[Atoms],
        *,
        forces: bool,
        stress: bool,
        batch_atoms: int,  # noqa: ARG002 (here one by one)
    ) -> list[dict[str, Any]]:
        """The results of each structure as if it were alone, about `batch_atoms` atoms evaluated at once."""
        results = []
        for atoms in structures:
            self.reset()
            periodic = bool(atoms.pbc.all())
            results.append(self.calculate(atoms, forces=forces, stress=stress and periodic, changes=all_changes))
        self.reset()
        return results

    @abstractmethod
    def reset(self) -> None:
        """Forget all that was kept of earlier structures."""

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:  # noqa: ARG002 (here all is evaluated)
        """Energy of a structure that differs from the settled one only in the atoms `changed`, eV."""
        energy: float = self.calculate(atoms, forces=False, stress=False, changes=("positions", "numbers"))["energy"]
        return energy

    def commit(self, accepted: bool) -> None:  # noqa: B027 (nothing to do where nothing is kept)
        """Keep the proposed structure, or go back to the settled one."""
