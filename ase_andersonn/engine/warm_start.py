"""Starting the solves of one geometry from those of the geometries before it."""

from typing import Any

from torch import Tensor

from ase_andersonn.solvers.extrapolation import Predictor

from .equilibrium import COLD, Equilibrium, Start


class WarmStart:
    """The history of a trajectory: features and adjoints to extrapolate from, and the differences that the solver
    keeps.

    Args:
        residual_tol: relative residual to which the stored solutions were solved.
        history: number of earlier steps.
    """

    def __init__(self, residual_tol: float, history: int = 6) -> None:
        # The error that is left after a warm start depends on earlier steps: the forces have no energy, and MD heats.
        # After a cold start it depends on the geometry alone. So a guess has to have two thirds of the digits
        # already (benchmarks/dynamics/warm_start.py).
        self.predictor = Predictor(history, noise=0.3 * residual_tol, max_error=residual_tol ** (2 / 3))
        self._states: tuple[Any, Any] = (None, None)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to start from."""
        return len(self.predictor) == 0

    def begin(self, injection: Tensor) -> Start:
        """Where to start for an injection `u` [n_atoms, n_channels]; cold for one unlike those before."""
        guess = self.predictor.guess(injection)
        if guess is None:
            return COLD
        z, adjoint = guess
        return Start(z, adjoint, *self._states)

    def end(self, equilibrium: Equilibrium) -> None:
        """Keep what was found."""
        self.predictor.update(equilibrium.encoding.injection.u, equilibrium.z, equilibrium.adjoint)
        self._states = equilibrium.forward.state, equilibrium.backward.state

    def reset(self) -> None:
        """Forget everything: the next geometry is not close to the last."""
        self.predictor.reset()
        self._states = (None, None)
