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

from ase_andersonn.backends import CompileMode
from ase_andersonn.inputs.graph import Graph, graph_from_atoms
from ase_andersonn.models.base import EnergyModel
from ase_andersonn.models.checkpoint import load_model
from ase_andersonn.models.operators import Operators, operators_of
from ase_andersonn.nn.deq import CellWeights, Injection, reverse_gates
from ase_andersonn.solvers import Segments

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cell:
    """One model on one batch of structures: everything that the iteration needs of the geometry, computed once."""

    model: EnergyModel
    graph: Graph
    species: Tensor
    operators: Operators
    weights: CellWeights
    injection: Injection
    reversed_gates: Tensor
    pair: Tensor

    @staticmethod
    @torch.no_grad()
    def of(model: EnergyModel, graph: Graph, compile: CompileMode = False) -> Cell:  # noqa: A002 (the package's word)
        species = model.species(graph.numbers)
        operators = operators_of(model, graph.vectors.device, compile)
        injection = operators.encode(graph, species)
        pair = model.pair_energies(graph.vectors, species, species[graph.neighbors], graph.mask)
        gates = reverse_gates(injection.gates, graph.reverse)
        return Cell(model, graph, species, operators, model.cell_weights(), injection, gates, pair)

    @property
    def segments(self) -> Segments | None:
        return None if self.graph.n_systems == 1 else Segments(self.graph.system, self.graph.n_systems)

    def f(self, z: Tensor) -> Tensor:
        """The features' map, `f(z)`."""
        value: Tensor = self.operators.cell(z, self.injection, self.graph.neighbors, self.weights)
        return value

    def source(self, z: Tensor) -> Tensor:
        """`∂E/∂z`."""
        value: Tensor = self.operators.readout_gradient(z, self.species)
        return value

    def slope(self, z: Tensor) -> Tensor:
        value: Tensor = self.operators.slope(z, self.injection, self.graph.neighbors, self.weights)
        return value

    def adjoint_map(self, z: Tensor) -> Map:
        """`λ → (∂f/∂z)ᵀ λ + ∂E/∂z` at these features."""
        slope, source = self.slope(z), self.source(z)
        pull, gates, neighbors, weights = self.operators.pull, self.reversed_gates, self.graph.neighbors, self.weights
        return lambda adjoint: source + pull(adjoint, slope, gates, neighbors, weights)

    def push(self, z: Tensor) -> Map:
        """`t → (∂f/∂z) t` at these features."""
        slope, push, neighbors = self.slope(z), self.operators.push, self.graph.neighbors
        return lambda tangent: push(tangent, slope, self.injection.gates, neighbors, self.weights)

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


def rattled_bulk(symbol: str, n_atoms: int, rattle: float = 0.05, seed: int = 0) -> Atoms:
    """The element's crystal as conventional cells repeated evenly to at least so many atoms, every atom displaced."""
    atoms = bulk(symbol, cubic=True)
    repeat = next(k for k in range(1, 10**4) if len(atoms) * k**3 >= n_atoms)
    atoms = atoms.repeat(repeat)
    atoms.positions += np.random.default_rng(seed).normal(scale=rattle, size=atoms.positions.shape)
    return atoms


def cell_of(model: EnergyModel, structures: Sequence[Atoms] | Atoms, compile: CompileMode = False) -> Cell:  # noqa: A002
    """The cell on structures, in the model's precision, on its device."""
    weight = next(model.parameters())
    graph = graph_from_atoms(structures, model.cutoff, dtype=weight.dtype, device=weight.device)
    return Cell.of(model, graph, compile)
