"""The cell of a model on given structures, its adjoint and its energies, for benchmarks that solve them by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols
from torch import Tensor

from ase_andersonn.backends import CompiledFunction, CompileMode, compile_function
from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.engine.compiled import compiled_model
from ase_andersonn.nn.equilibrium_cell import EquilibriumCell, Injection, method_of_cell, reverse_gates
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers import Segments
from ase_andersonn.structures.graph import Graph, graph_from_atoms

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cell:
    """One model on one batch of structures: everything that the iteration needs of the geometry, computed once.

    `apply`, `vjp` and `jvp` are methods of `nn.equilibrium_cell.EquilibriumCell`, compiled or not.
    """

    model: EnergyModel
    graph: Graph
    species: Tensor
    cell: EquilibriumCell
    injection: Injection
    reversed_gates: Tensor
    pair: Tensor
    apply: CompiledFunction[..., Tensor]
    vjp: CompiledFunction[..., Tensor]
    jvp: CompiledFunction[..., Tensor]

    @staticmethod
    @torch.no_grad()
    def of(model: EnergyModel, graph: Graph, mode: CompileMode = False) -> Cell:
        species = model.species(graph.numbers)
        injection, pair, *_ = compiled_model(model, graph.vectors.device, mode).encoder.encode(
            graph, species, keep=False
        )
        gates = reverse_gates(injection.gates, graph.reverse)
        device = graph.vectors.device
        methods = (method_of_cell(name) for name in ("apply", "vjp", "jvp"))
        functions = (compile_function(method, device=device, mode=mode, dynamic=True) for method in methods)
        return Cell(model, graph, species, model.cell_weights(), injection, gates, pair, *functions)

    @property
    def backend(self) -> str:
        """`"inductor"` or `"eager"`."""
        return self.apply.backend

    @property
    def segments(self) -> Segments | None:
        return None if self.graph.n_systems == 1 else Segments(self.graph.system, self.graph.n_systems)

    def f(self, z: Tensor) -> Tensor:
        """The features' map, `f(z)`."""
        return self.apply(self.cell, z, self.injection, self.graph.neighbors)

    def source(self, z: Tensor) -> Tensor:
        """`∂E/∂z`."""
        gradient: Tensor = torch.func.grad(lambda y: self.model.readout(y, self.species).sum())(z)
        return gradient

    def slope(self, z: Tensor) -> Tensor:
        return self.cell.linearize(z, self.injection, self.graph.neighbors)[1]

    def adjoint_map(self, z: Tensor) -> Map:
        """`λ → (∂f/∂z)ᵀ λ + ∂E/∂z` at these features."""
        slope, source = self.slope(z), self.source(z)
        rest = slope, self.reversed_gates, self.graph.neighbors
        return lambda adjoint: source + self.vjp(self.cell, adjoint, *rest)

    def push(self, z: Tensor) -> Map:
        """`t → (∂f/∂z) t` at these features."""
        rest = self.slope(z), self.injection.gates, self.graph.neighbors
        return lambda tangent: self.jvp(self.cell, tangent, *rest)

    def energies(self, z: Tensor) -> Tensor:
        """`E_i(z)`, less the reference energies [n_atoms], eV."""
        return self.model.readout(z, self.species) + self.pair

    def lagrangian(self, z: Tensor, adjoint: Tensor) -> Tensor:
        """`E_i(z) + λ_i · (f(z) − z)_i` [n_atoms], eV."""
        return self.energies(z) + (adjoint * (self.f(z) - z)).sum(-1)


def model_in(name_or_path: str | None, dtype: torch.dtype, device: torch.device | str = "cpu") -> EnergyModel:
    """A trained model, ready for use; None is the packaged default."""
    return load_model(name_or_path).to(device=device, dtype=dtype).eval().requires_grad_(False)


def name_of(model: EnergyModel) -> str:
    """Architecture, elements and contraction, for a report."""
    contraction = getattr(model.config, "contraction", None)
    return f"{type(model).__name__} ({', '.join(symbols(model))}; γ = {contraction}, cutoff {model.cutoff} Å)"


def symbols(model: EnergyModel) -> list[str]:
    return [chemical_symbols[number] for number in model.elements]


def first_choice(model: EnergyModel) -> str:
    """Silicon where the model knows it, else its first element."""
    return "Si" if "Si" in symbols(model) else symbols(model)[0]


def rattled_bulk(symbol: str, n_atoms: int, rattle: float = 0.05, seed: int = 0) -> Atoms:
    """The element's crystal as conventional cells repeated evenly to at least so many atoms, every atom displaced."""
    atoms = bulk(symbol, cubic=True)
    repeat = next(k for k in range(1, 10**4) if len(atoms) * k**3 >= n_atoms)
    atoms = atoms.repeat(repeat)
    atoms.positions += np.random.default_rng(seed).normal(scale=rattle, size=atoms.positions.shape)
    return atoms


def cell_of(model: EnergyModel, structures: Sequence[Atoms] | Atoms, mode: CompileMode = False) -> Cell:
    """The cell on structures, in the model's precision, on its device; `mode` as in `backends.compile_function`."""
    weight = next(model.parameters())
    graph = graph_from_atoms(structures, model.cutoff, dtype=weight.dtype, device=weight.device)
    return Cell.of(model, graph, mode)
