"""Conformance checks for calculators, and for architectures of potentials."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .calculators import check_calculator
    from .models import check_energy_model

__all__ = ["check_calculator", "check_energy_model"]

_HOMES = {"check_calculator": ".calculators", "check_energy_model": ".models"}
_FORMER = ("ConformanceError", "check_results", "check_forces", "check_stress", "force_error", "stress_error")
__getattr__ = lazy_names(__name__, _HOMES, dict.fromkeys(_FORMER, ".calculators"))
