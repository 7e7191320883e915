"""Fixed-point solvers for z = f(z) on tensors, with one window, residual and step count per independent problem."""

from .anderson import Anderson
from .base import Counters, Safeguards, Segments, Solution, Solver, solve
from .broyden import Broyden
from .extrapolation import Predictor
from .gmres import gmres, solve_linear
from .implicit import fixed_point
from .picard import Picard

__all__ = [
    "Anderson",
    "Broyden",
    "Counters",
    "Picard",
    "Predictor",
    "Safeguards",
    "Segments",
    "Solution",
    "Solver",
    "fixed_point",
    "gmres",
    "solve",
    "solve_linear",
]
