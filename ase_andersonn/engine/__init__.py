"""Solving and differentiating an equilibrium potential: energies, forces, stress and gradients of weights."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .energy_forces import Evaluation, evaluate
    from .equilibrium import SolveOptions

__all__ = ["Evaluation", "SolveOptions", "evaluate"]

_HOMES = {**dict.fromkeys(("Evaluation", "evaluate"), ".energy_forces"), "SolveOptions": ".equilibrium"}
__getattr__ = lazy_names(__name__, _HOMES)
