"""Solvers by class name: those of this package, and those that other packages register.

A package adds a solver with an entry point of the group `ase_andersonn.solvers`, whose name is that of the class and
whose value the module that defines it, as in `MySolver = "my_package.my_solver"`. The class is called without arguments
and has the methods of `base.Solver`.
"""

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points

from .base import Solver

SOLVERS = {
    "Anderson": "ase_andersonn.solvers.anderson",
    "Broyden": "ase_andersonn.solvers.broyden",
    "Picard": "ase_andersonn.solvers.picard",
}
"""Names and modules of this package's solvers."""
GROUP = "ase_andersonn.solvers"
"""Entry points of other packages."""
AFTER_PICARD = ("Anderson", "Picard")
"""Solvers that continue Picard iterations in one compiled function; every other one makes all iterations itself."""


def solver_module(name: str) -> str:
    """Module of the solver of a class name.

    Raises:
        ValueError: if there is none of that name; the text lists all.
    """
    if name in SOLVERS:
        return SOLVERS[name]
    known = {entry.name: entry.value for entry in entry_points(group=GROUP)} | SOLVERS
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"solver is {name!r}; known are {', '.join(sorted(known))}{hint}")
    return known[name]


def solver_named(name: str) -> Solver:
    """Solver of a class name, with its default arguments.

    Raises:
        ValueError: if there is none of that name; the text lists all.
    """
    solver: Solver = getattr(import_module(solver_module(name)), name)()
    return solver
