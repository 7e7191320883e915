"""Functions of a model whose Picard iterations run in C++ where the structure is small."""

import torch
from torch import Tensor

from ase_andersonn.engine.functions import Functions
from ase_andersonn.nn.blocks import SILU_MAX_SLOPE
from ase_andersonn.nn.equilibrium_cell import EquilibriumCell, Injection

from .kernel import call
from .messages import NativeCellWeights

MAX_ATOMS = 256
"""Of larger structures the features leave the cache between two iterations, and one thread does them all."""
MAX_STEPS = 60
"""Iterations at most where a tolerance is given; as many as a solver may make."""


class NativeFunctions(Functions):
    """As `Functions`; where a tolerance is given, a small structure is iterated until a step is as short as that."""

    def features(
        self, z: Tensor, injection: Injection, neighbors: Tensor, cell: EquilibriumCell, steps: int, tol: float
    ) -> tuple[Tensor, int]:
        """See `Functions.features`."""
        if len(z) > MAX_ATOMS or not isinstance(cell, NativeCellWeights):
            return super().features(z, injection, neighbors, cell, steps, tol)
        z, (u, v, gates) = z.clone(), injection
        done = self._call("features", (gates, u, v, *_matrices(cell), neighbors, z), steps, tol, 1.0 / SILU_MAX_SLOPE)
        return z, done

    def adjoint(
        self,
        source: Tensor,
        slope: Tensor,
        gates: Tensor,
        neighbors: Tensor,
        reverse: Tensor,
        cell: EquilibriumCell,
        steps: int,
        tol: float,
    ) -> tuple[Tensor, Tensor, int]:
        """See `Functions.adjoint`."""
        if len(source) > MAX_ATOMS or not isinstance(cell, NativeCellWeights):
            return super().adjoint(source, slope, gates, neighbors, reverse, cell, steps, tol)
        found, before = torch.empty_like(source), torch.empty_like(source)
        inputs = gates, source, slope, *_matrices(cell), neighbors, reverse
        done = self._call("adjoint", (*inputs, found, before), steps, tol)
        return found, before, done

    def _call(self, name: str, tensors: tuple[Tensor, ...], steps: int, tol: float, *more: float) -> int:
        done = torch.zeros(1, dtype=torch.int64)
        sizes = *tensors[0].shape, MAX_STEPS if tol else steps, float(tol), *more
        call(name, *(x.contiguous() for x in tensors), done, first=sizes)
        return int(done)


def _matrices(cell: NativeCellWeights) -> tuple[Tensor, ...]:
    return cell.w_send[0], cell.w_mix[0], cell.w_out[0]
