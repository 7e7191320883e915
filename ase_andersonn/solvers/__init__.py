"""Fixed-point solvers for z = f(z) on tensors, with one window, residual and step count per independent problem."""

from ase_andersonn.lazy import lazy_names

from .anderson import Anderson
from .base import Segments, Solution, Solver, solve
from .broyden import Broyden
from .gmres import gmres, solve_linear
from .implicit import fixed_point
from .picard import Picard

__all__ = [
    "Anderson",
    "Broyden",
    "Picard",
    "Segments",
    "Solution",
    "Solver",
    "fixed_point",
    "gmres",
    "solve",
    "solve_linear",
]

_FORMER = {**dict.fromkeys(("Counters", "Safeguards"), ".base"), "Predictor": ".extrapolation"}
__getattr__ = lazy_names(__name__, {}, _FORMER)
