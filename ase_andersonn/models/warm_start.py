"""Starting the solves of one geometry from those of the geometries before it."""

from torch import Tensor

from ..solvers.predictor import Predictor
from .derivatives import Equilibrium, Start


class WarmStart:
    """The history of a trajectory: extrapolated features and adjoints, and the differences that Anderson's method keeps.

    Args:
        residual_tol: relative residual to which the stored solutions were solved.
        history: number of earlier steps.
    """

    def __init__(self, residual_tol: float, history: int = 6) -> None:
        self.predictor = Predictor(history, noise=0.3 * residual_tol)
        self.last: Equilibrium | None = None

    def begin(self, injection: Tensor) -> Start:
        """Where to start for a geometry with the injection `u` [n_atoms, n_channels]."""
        guess = self.predictor.guess(injection)
        if guess is None or self.last is None:
            return Start()
        return Start(*guess, self.last.forward.state, self.last.backward.state)

    def end(self, equilibrium: Equilibrium) -> None:
        """Keep what was found."""
        self.predictor.update(equilibrium.injection.u, equilibrium.z, equilibrium.adjoint)
        self.last = equilibrium

    def reset(self) -> None:
        """Forget everything: the next geometry is not close to the last."""
        self.predictor.reset()
        self.last = None
