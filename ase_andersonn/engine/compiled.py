"""The functions of an equilibrium model, each compiled where a compiler exists, and what is put together from them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.backends import CompileMode, compile_function
from ase_andersonn.nn.equilibrium_cell import (
    CellWeights,
    EquilibriumCell,
    Injection,
    method_of_cell,
)
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import Graph

from .encoding import Encoder, Encoding, default_block
from .encoding_gradients import CompiledEncoding, Encoded
from .functions import Functions
from .native.functions import NativeFunctions
from .native.kernel import parameters_of
from .native.messages import NativeCellWeights
from .native.model import with_kernel
from .training_functions import TrainingFunctions


class Linearized(NamedTuple):
    """The cell at its solution.

    Attributes:
        sent: what the neighbours receive of it [n_atoms, width of a message].
        slope: see `EquilibriumCell.linearize` [n_atoms, n_channels].
        cell: the cell.
    """

    sent: Tensor
    slope: Tensor
    cell: EquilibriumCell


class CompiledModel:
    """The functions of one model on one device, and what is put together from them.

    Args:
        model: the model; its weights are read at every call.
        device: where it lives.
        mode: as in `backends.compile_function`; `"native"` for C++ kernels, without gradients of the weights.
    """

    def __init__(self, model: EnergyModel, device: torch.device, mode: CompileMode) -> None:
        if mode == "native":
            model = with_kernel(model, device)

        def compiled(function: Any, dynamic: bool | None = None) -> Any:
            return compile_function(function, device=device, mode=mode, dynamic=dynamic)

        self.functions = functions = NativeFunctions(model) if mode == "native" else Functions(model)
        self.encoder = Encoder(functions, compiled, default_block(device, mode))
        self.linearize = compiled(functions.linearize)
        self.picard = compiled(functions.picard)
        self.fused = compiled(functions.fused)
        self.training = TrainingFunctions(model)
        # The largest functions by far: batches differ in size, so compile them once for all sizes.
        once = partial(compiled, dynamic=True)
        self.tangents = once(self.training.tangents)
        self.weight_gradient = once(self.training.weight_gradient)
        eager = self.tangents.backend in ("eager", "native")
        self.encode: Callable[..., Encoded] = functions.encode if eager else CompiledEncoding(model, once)
        self.apply, self.jvp, self.vjp, self.gates_vjp = (
            compiled(method_of_cell(name)) for name in ("apply", "jvp", "vjp", "gates_vjp")
        )
        self._model, self._modules, self._is_native = model, tuple(model.modules()), mode == "native"
        self._weights: tuple[Any, EquilibriumCell | None] = (None, None)

    @torch.no_grad()
    def cell_weights(self) -> EquilibriumCell:
        """The cell, its bounded matrices made anew where a weight of the model has changed."""
        version = [(p.data_ptr(), None if p.is_inference() else p._version) for p in parameters_of(self._modules)]
        unknown = any(count is None for _, count in version)  # weights made inside inference mode count no changes
        if unknown or self._weights[0] != version:
            self._weights = version, self._bounded()
        bounded = self._weights[1]
        assert bounded is not None
        return bounded

    def _bounded(self) -> EquilibriumCell:
        cell = self._model.cell_weights()
        return NativeCellWeights(*cell) if self._is_native and isinstance(cell, CellWeights) else cell

    def edge_gradient(
        self, graph: Graph, species: Tensor, encoding: Encoding, state: Linearized, adjoint: Tensor
    ) -> Tensor:
        """`∂L/∂d = λ · ∂f/∂d + ∂E_pair/∂d` [n_atoms, n_neighbors, 3], eV/Å, block by block.

        `f` depends on the edge vectors through `u`, `v` and the gates alone; their cotangents are `λ`, `s` and what
        those of `EquilibriumCell.injection_vjp` and `gates_vjp`.
        """
        inner, messages = state.cell.injection_vjp(adjoint, state.slope)

        def of_cell(b: slice) -> tuple[Tensor, Tensor]:
            return adjoint[b], inner[b]

        def of_rest(b: slice) -> tuple[Tensor, Tensor]:
            gates = self.gates_vjp(state.cell, messages[b], state.sent, encoding.injection.gates[b], graph.neighbors[b])
            return gates, torch.ones_like(encoding.pair[b])

        return self.encoder.pull(graph, species, encoding, of_cell, of_rest)

    def injection_cotangent(self, graph: Graph, injection: Injection, state: Linearized, adjoint: Tensor) -> Injection:
        """`∂L/∂x` of the injection `x` at the solution; see `edge_gradient`."""
        inner, messages = state.cell.injection_vjp(adjoint, state.slope)
        gates = self.gates_vjp(state.cell, messages, state.sent, injection.gates, graph.neighbors)
        return Injection(adjoint, inner, gates)


def compiled_model(model: EnergyModel, device: torch.device, mode: CompileMode) -> CompiledModel:
    """The functions of a model, made once for each device and compile mode, and kept with it."""
    key = (device, mode)
    if key not in model._compiled:
        model._compiled[key] = CompiledModel(model, device, mode)
    compiled: CompiledModel = model._compiled[key]
    return compiled
