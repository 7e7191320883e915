"""A structure evaluated as a whole: its graph, one solve for all atoms, warm starts from the calls before."""

import logging
import math
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.geometry import find_mic
from numpy.typing import NDArray

from ase_andersonn.backends import exact_matmul
from ase_andersonn.batching import pack
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import (
    ROUND_OFF,
    ConvergenceError,
    Evaluator,
    Settings,
    warn_caller,
    warn_of_error,
)
from ase_andersonn.potentials.training_domain import name_of
from ase_andersonn.solvers.registry import AFTER_PICARD, solver_named
from ase_andersonn.structures.graph import Graph, graph_from_atoms
from ase_andersonn.structures.neighbor_list import NeighborList

from .compile_choice import CompileChoice
from .domain_monitor import DomainMonitor
from .double_precision import DoublePrecision
from .energy_forces import Evaluation, evaluate
from .equilibrium import cold_start
from .fused import evaluate_at_once
from .warm_start import WarmStart

logger = logging.getLogger(__name__)

NEARBY = 0.5
"""Å: when an atom has moved further since the last call, the solves start cold."""
CLOSE = 1.15
"""Times the model's `min_distance`: where atoms are closer, an energy is computed with its forces, to estimate
its rounding error; see `energy_forces.rounding`. Elsewhere an energy alone costs no forces."""
FUSED_MAX_ATOMS = 256
"""Atoms up to which a structure is evaluated at once: one call takes less time than the bookkeeping of a warm start."""


class DirectEvaluator(Evaluator):
    """Energies, forces and stresses of an equilibrium model.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`.

    Attributes:
        diagnostics: applications of the cell and its transpose (`evaluations`), largest residuals (`residual`,
            `adjoint_residual`), the estimated energy error (`energy_error`, eV/atom), what rounding may add to it
            (`round_off`, eV/atom; above `tol`, a structure is evaluated in float64), the solver's safeguards
            (`safeguards`), rebuilds of the neighbour list (`rebuilds`), how the functions run (`backend`), seconds
            (`times`); where the model knows it, `extrapolation` of `properties.DIAGNOSTICS`, after `calculate_many` a
            list of those of each structure.
    """

    def __init__(self, model: EnergyModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self._solver = solver_named(settings.solver)
        self.neighbor_list = NeighborList(model.edge_cutoff, settings.skin if settings.warm_start else 0.0)
        self.warm_start = WarmStart(math.sqrt(settings.tol)) if settings.warm_start else None
        self.diagnostics: dict[str, Any] = {}
        self.contacts = DomainMonitor(model)
        self._double = DoublePrecision(model)
        self._worked, self._compile_choice = 0.0, CompileChoice(model, settings)
        self._last: _Last | None = None

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:  # noqa: ARG002 (found here)
        """See `Evaluator.calculate`."""
        return self._calculate(atoms, forces=forces, stress=stress, look=True)

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """See `Evaluator.trial_energy`. Trial structures, most of which are rejected, cause no warnings."""
        if len(changed) >= len(atoms):  # nothing may be taken from what was evaluated before
            self._last = None
        energy: float = self._calculate(atoms, forces=False, stress=False, look=False)["energy"]
        return energy

    def _calculate(self, atoms: Atoms, *, forces: bool, stress: bool, look: bool) -> dict[str, Any]:
        before, self._last = self._last, None  # a call that fails leaves no history behind
        begun = time.perf_counter()
        if self.warm_start is None:
            self.neighbor_list.reset()  # kept edges are summed in an order that depends on where they were found
        graph = graph_from_atoms(
            atoms,
            self.model.edge_cutoff,
            dtype=self.settings.dtype,
            device=self.settings.device,
            neighbor_list=self.neighbor_list,
        )
        if look:
            self.contacts.names = [name_of(atoms)] if "name" in atoms.info else ()
            self.contacts.follow(graph, self.neighbor_list.rebuilds)
        listed = time.perf_counter()
        self._follow(atoms, before)
        with exact_matmul():
            gradient = forces or stress or (look and self._is_close(graph))
            evaluation = self._evaluate(graph, forces=gradient, stress=stress)
            evaluation = self._refined([atoms], evaluation, forces=gradient, stress=stress)
        results = _as_results(evaluation, forces=gradient)[0]
        done = time.perf_counter()
        self._worked += done - begun
        self._describe(evaluation, {"neighbors": listed - begun, "evaluate": done - listed})
        self._check(evaluation)
        if look and (scores := self._extrapolation(graph, evaluation)) is not None:
            self.diagnostics["extrapolation"] = scores.cpu().double().numpy()
        self._last = _Last(atoms.positions.copy(), atoms.numbers.copy(), atoms.pbc.copy())
        return results

    def _evaluate(self, graph: Graph, *, forces: bool, stress: bool) -> Evaluation:
        """By fused Picard iterations where they reach the tolerance, otherwise by the solver from then on."""
        mode = self._compile_choice.mode(self._worked)
        fused = self.settings.solver in AFTER_PICARD and graph.n_atoms <= FUSED_MAX_ATOMS
        if fused and (self.warm_start is None or self.warm_start.empty):
            found = evaluate_at_once(
                self.model, graph, forces=forces, stress=stress, tol=self.settings.tol, compile=mode
            )
            if found is not None:
                return found
        begin = cold_start if self.warm_start is None else self.warm_start.begin
        evaluation = evaluate(
            self.model,
            graph,
            forces=forces,
            stress=stress,
            tol=self.settings.tol,
            solver=self._solver,
            begin=begin,
            compile=mode,
        )
        if self.warm_start is not None and bool(evaluation.equilibrium.converged.all()):
            self.warm_start.end(evaluation.equilibrium)
        return evaluation

    def _refined(self, structures: Sequence[Atoms], found: Evaluation, *, forces: bool, stress: bool) -> Evaluation:
        """With structures that need it in float64; see `DoublePrecision`."""
        if self.settings.dtype == torch.float64:
            return found
        mode = self._compile_choice.mode(self._worked)
        tol, solver = self.settings.tol, self._solver
        return self._double.refined(
            structures, found, compile=mode, forces=forces, stress=stress, tol=tol, solver=solver
        )

    def calculate_many(
        self, structures: Sequence[Atoms], *, forces: bool, stress: bool, batch_atoms: int
    ) -> list[dict[str, Any]]:
        """See `Evaluator.calculate_many`."""
        results: list[dict[str, Any]] = []
        far: list[NDArray[np.float64]] = []
        for indices in pack([len(atoms) for atoms in structures], batch_atoms):
            chunk = [structures[i] for i in indices]
            graph = graph_from_atoms(
                chunk, self.model.edge_cutoff, dtype=self.settings.dtype, device=self.settings.device
            )
            self.contacts.names = list(map(name_of, chunk)) if len(structures) > 1 else ()
            self.contacts.check(graph)
            begun = time.perf_counter()
            gradient = forces or (not stress and self._is_close(graph))
            with exact_matmul():
                evaluation = evaluate(
                    self.model,
                    graph,
                    forces=gradient,
                    stress=stress,
                    tol=self.settings.tol,
                    solver=self._solver,
                    compile=self._compile_choice.mode(self._worked),
                )
                evaluation = self._refined(chunk, evaluation, forces=gradient, stress=stress)
            spent = time.perf_counter() - begun
            self._worked += spent
            self._describe(evaluation, {"evaluate": spent})
            self._check(evaluation)
            if (scores := self._extrapolation(graph, evaluation)) is not None:
                far += np.split(scores.cpu().double().numpy(), np.cumsum([len(atoms) for atoms in chunk])[:-1])
            results += _as_results(evaluation, forces=forces)
        if far:
            self.diagnostics["extrapolation"] = far
        return results

    @torch.no_grad()
    def _extrapolation(self, graph: Graph, evaluation: Evaluation) -> torch.Tensor | None:
        """How far each atom is from what was learnt [n_atoms]; warns once where that is too far."""
        scores = self.contacts.extrapolation(graph, evaluation.equilibrium)
        self.contacts.check_extrapolation(graph, scores)
        return scores

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.diagnostics = {}
        self._last = None
        self.neighbor_list.reset()
        if self.warm_start is not None:
            self.warm_start.reset()

    def _is_close(self, graph: Graph) -> bool:
        """Whether atoms are so close that rounding may matter, of which forces are the measure."""
        species = self.model.species(graph.numbers)
        nearest = CLOSE * self.model.min_distance[species[:, None], species[graph.neighbors]]
        return bool(((graph.vectors.square().sum(-1) < nearest.square()) & graph.mask).any())

    def _follow(self, atoms: Atoms, before: "_Last | None") -> None:
        """Drop the history where this structure is not close to the last one."""
        if self.warm_start is not None and not self.warm_start.empty and (before is None or before.is_far(atoms)):
            self.warm_start.reset()

    def _describe(self, evaluation: Evaluation, times: dict[str, float]) -> None:
        eq = evaluation.equilibrium
        self.diagnostics = {
            "evaluations": {"cell": eq.evaluations[0], "transposed": eq.evaluations[1]},
            "residual": float(eq.forward.residual.max()),
            "adjoint_residual": float(eq.backward.residual.max()),
            "energy_error": float(eq.error.max()),
            "converged": bool(eq.converged.all()),
            "safeguards": {"cell": vars(eq.forward.counters), "transposed": vars(eq.backward.counters)},
            "rebuilds": self.neighbor_list.rebuilds,
            "backend": eq.backend,
            "device": str(self.settings.device),
            "times": times,
        }
        if evaluation.round_off is not None:
            self.diagnostics["round_off"] = float(evaluation.round_off.max())

    def _check(self, evaluation: Evaluation) -> None:
        eq, tol = evaluation.equilibrium, self.settings.tol
        if not bool(eq.converged.all()):
            raise ConvergenceError(
                f"the equilibrium was not reached: residuals {self.diagnostics['residual']:.1e} (features) and "
                f"{self.diagnostics['adjoint_residual']:.1e} (adjoint), wanted {math.sqrt(tol):.1e}. "
                "Ask for a larger tol, or for dtype='float64' where tol is below 1e-12."
            )
        if not bool(torch.isfinite(evaluation.energy).all()):
            raise CalculationFailed("the energy is not finite; are there atoms much too close to each other?")
        warn_of_error(self.diagnostics["energy_error"], tol)
        if self.diagnostics.get("round_off", 0.0) > max(tol, ROUND_OFF):
            warn_caller(  # the same text each time, as above
                "forces or energies are so large that rounding may move the energy by more than the tolerance of "
                f"{tol:.1e} eV/atom; diagnostics['round_off'] says by how much: ask for dtype='float64', or for a "
                "larger tol."
            )

    def __getstate__(self) -> dict[str, Any]:
        fresh = self.warm_start and WarmStart(math.sqrt(self.settings.tol))
        return {**self.__dict__, "warm_start": fresh, "_last": None}


class _Last(NamedTuple):
    """Positions, atomic numbers and pbc of the last structure, to find out whether the next is close."""

    positions: NDArray[np.float64]
    numbers: NDArray[np.int64]
    pbc: NDArray[np.bool_]

    def is_far(self, atoms: Atoms) -> bool:
        """Whether atoms are others, or one of them has moved by more than `NEARBY`."""
        if not (np.array_equal(self.numbers, atoms.numbers) and np.array_equal(self.pbc, atoms.pbc)):
            return True
        moved, _ = find_mic(atoms.positions - self.positions, atoms.cell, atoms.pbc)
        return bool(np.square(moved).sum(1).max() > NEARBY**2)


def _voigt(stress: torch.Tensor) -> NDArray[np.float64]:
    """Symmetric [n, 3, 3] in ASE's order xx, yy, zz, yz, xz, xy [n, 6]."""
    voigt: NDArray[np.float64] = stress.cpu().double().flatten(1)[:, [0, 4, 8, 5, 2, 1]].numpy()
    return voigt


def _as_results(evaluation: Evaluation, *, forces: bool) -> list[dict[str, Any]]:
    """ASE's results of each structure: float64, stresses as six numbers."""
    counts = evaluation.n_per_system.tolist()
    ends = np.cumsum(counts)
    energy = evaluation.energy.cpu().numpy()
    rows: dict[str, Any] = {"energies": evaluation.energies, "forces": evaluation.forces if forces else None}
    rows = {name: t.cpu().double().numpy() for name, t in rows.items() if t is not None}
    if evaluation.stresses is not None and evaluation.stress is not None:
        rows["stresses"] = _voigt(evaluation.stresses)
        stress = _voigt(evaluation.stress)
    results = []
    for index, (end, count) in enumerate(zip(ends, counts, strict=True)):
        found: dict[str, Any] = {"energy": float(energy[index]), "free_energy": float(energy[index])}
        found |= {name: values[end - count : end].copy() for name, values in rows.items()}
        if "stresses" in found and np.isfinite(stress[index]).all():
            found["stress"] = stress[index].copy()
        else:
            found.pop("stresses", None)
        results.append(found)
    return results
