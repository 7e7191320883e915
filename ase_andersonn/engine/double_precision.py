"""Structures whose energy the rounding of float32 may move by more than the tolerance, in float64."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from ase_andersonn.backends import CompileMode
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import graph_from_atoms

from .energy_forces import Evaluation, evaluate

PER_STRUCTURE = ("energy", "stress", "round_off")
PER_ATOM = ("energies", "forces", "stresses")


class DoublePrecision:
    """Second evaluations in float64, by a copy of a model that is made when it is needed first.

    Args:
        model: the model in single precision.
    """

    def __init__(self, model: EnergyModel) -> None:
        self.model = model
        self._copy: EnergyModel | None = None
        self._versions: list[int] = []

    def refined(
        self, structures: Sequence[Atoms], evaluation: Evaluation, *, compile: CompileMode, **options: Any
    ) -> Evaluation:
        """The evaluation, where `round_off` is above `tol` replaced by one in float64, if that converges.

        Args:
            structures: the structures evaluated.
            evaluation: their evaluation.
            compile: how the model's functions run; PyTorch's compiler is not asked for another precision.
            options: `forces`, `stress`, `tol` and `solver` of `energy_forces.evaluate`.
        """
        if evaluation.round_off is None or not bool((rough := evaluation.round_off > options["tol"]).any()):
            return evaluation
        model = self._double()
        chosen = [atoms for atoms, one in zip(structures, rough.tolist(), strict=True) if one]
        graph = graph_from_atoms(chosen, model.edge_cutoff, dtype=torch.float64, device=rough.device)
        exact = evaluate(model, graph, compile="native" if compile == "native" else False, **options)
        if not bool(exact.equilibrium.converged.all()):
            return evaluation
        atoms = rough.repeat_interleave(evaluation.n_per_system)
        changed: dict[str, Any] = {name: _replaced(evaluation, exact, name, rough) for name in PER_STRUCTURE}
        changed |= {name: _replaced(evaluation, exact, name, atoms) for name in PER_ATOM}
        return replace(evaluation, **changed)

    def _double(self) -> EnergyModel:
        versions = [parameter._version for parameter in self.model.parameters()]
        if self._copy is None or versions != self._versions:
            self._copy, self._versions = copy.deepcopy(self.model).double(), versions
        return self._copy

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None}


def _replaced(evaluation: Evaluation, exact: Evaluation, name: str, rows: Tensor) -> Tensor | None:
    values: Tensor | None = getattr(evaluation, name)
    if values is not None:
        values = values.double().clone()
        values[rows] = getattr(exact, name)
    return values
