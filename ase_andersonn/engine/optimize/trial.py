"""Candidates on trial: results compared with eager ones, and times taken in turn."""

import copy
import statistics
import time
from dataclasses import replace
from typing import NamedTuple

import torch

from ase_andersonn.backends import threads_for
from ase_andersonn.engine.compiled import compiled_model
from ase_andersonn.engine.energy_forces import Evaluation, evaluate
from ase_andersonn.engine.fused import evaluate_at_once
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import Graph, graph_from_atoms

from .kept import MODES, Candidate
from .samples import LARGE, SMALL, sample

SMALL_CALLS, LARGE_CALLS = 15, 3
"""Timed calls, each of another geometry, the same for all candidates."""
TOLERANCES = {torch.float64: (1e-10, 1e-10), torch.float32: (1e-6, 1e-5)}
"""eV/atom and eV/Å (stress: eV/Å³) by which results may differ from eager ones in double precision."""
SOLVED = {torch.float64: 1e-13, torch.float32: 1e-8}
"""eV/atom: energy tolerance of the solves that are compared."""
TIMED = 1e-6
"""eV/atom: energy tolerance of the solves that are timed, the calculator's default."""
ROUNDING = 2.0
"""Times eager's own deviation in the same precision, which is allowed where it is above the tolerance."""

Deviation = tuple[float, float, float]
"""Largest differences of energies, forces and stresses: eV/atom, eV/Å, eV/Å³."""


class Results(NamedTuple):
    """Energy per atom [1], forces [n_atoms, 3] and stress [1, 3, 3] of a structure, in float64."""

    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor


class Trial:
    """Small and large structures of a model, on which candidates are checked and timed.

    Args:
        model: the model; copies of it are used.
        device: where it runs.

    Raises:
        RuntimeError: where eager results do not converge.
    """

    def __init__(self, model: EnergyModel, device: torch.device) -> None:
        self.device = device
        self.models = {
            dtype: copy.deepcopy(model).to(device=device, dtype=dtype).eval().requires_grad_(False)
            for dtype in TOLERANCES
        }
        self.small = [self._graphs(SMALL, seed) for seed in range(SMALL_CALLS)]
        self.large = [self._graphs(LARGE, seed) for seed in range(LARGE_CALLS)]
        block = compiled_model(self.models[torch.float64], device, False).encoder.block
        eager = Candidate("eager", block, "")
        self._exact = self._results(eager, torch.float64)
        self._known = {("eager", block, torch.float64): (0.0, 0.0, 0.0)}
        largest = max(float(found.forces.abs().max()) for found in self._exact)
        rounding = self._deviation(eager, torch.float32)
        self._allowed = {
            dtype: (energy, *[forces * (1.0 + 0.1 * largest)] * 2) for dtype, (energy, forces) in TOLERANCES.items()
        }
        self._allowed[torch.float32] = tuple(
            max(allowed, ROUNDING * own) for allowed, own in zip(self._allowed[torch.float32], rounding, strict=True)
        )

    @property
    def n_atoms(self) -> tuple[int, int]:
        """Of the small and the large structures."""
        return self.small[0][torch.float32].n_atoms, self.large[0][torch.float32].n_atoms

    def checked(self, candidate: Candidate) -> Candidate:
        """The candidate with its deviations in float32; its verdict says so where one is too large in any precision."""
        if candidate.verdict:
            return candidate
        begun = time.perf_counter()
        try:
            single = self._deviation(candidate, torch.float32)
            built = time.perf_counter() - begun if candidate.name == "inductor" else candidate.build_s
            double = self._deviation(candidate, torch.float64)
        except Exception as error:  # whatever a compiler or its code raises
            return replace(candidate, verdict=f"failed: {str(error).strip().splitlines()[0][:200]}")
        verdict = self._refusal(single, torch.float32) or self._refusal(double, torch.float64)
        energy, forces, stress = single
        return replace(
            candidate,
            verdict=verdict,
            build_s=built,
            energy_error=energy,
            forces_error=forces,
            stress_error=stress,
        )

    def timed(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates without a verdict with their times: medians over geometries, candidates in turn."""
        racing = [k for k, candidate in enumerate(candidates) if not candidate.verdict]
        found = list(candidates)
        for field, graphs in (("small_us", self.small), ("large_us", self.large)):
            seconds: dict[int, list[float]] = {k: [] for k in racing}
            for turn, graph in enumerate(graphs):
                for k in racing[turn % len(racing) :] + racing[: turn % len(racing)]:
                    seconds[k].append(self._seconds(candidates[k], graph[torch.float32]))
            for k in racing:
                microseconds = 1e6 * statistics.median(seconds[k]) / graphs[0][torch.float32].n_atoms
                found[k] = replace(found[k], **{field: microseconds})  # type: ignore[arg-type]
        return found

    def _graphs(self, n_cells: int, seed: int) -> dict[torch.dtype, Graph]:
        model = self.models[torch.float64]
        atoms = sample(model, n_cells, seed)
        return {
            dtype: graph_from_atoms(atoms, model.edge_cutoff, dtype=dtype, device=self.device) for dtype in TOLERANCES
        }

    def _results(self, candidate: Candidate, dtype: torch.dtype) -> list[Results]:
        found = []
        for graphs in (self.small, self.large):
            evaluation = self._run(candidate, graphs[0][dtype], SOLVED[dtype])
            if not bool(evaluation.equilibrium.converged.all()):
                raise RuntimeError(f"{candidate.name} results do not converge where candidates are compared")
            energy, forces, stress = evaluation.energy / evaluation.n_per_system, evaluation.forces, evaluation.stress
            assert forces is not None
            assert stress is not None
            found.append(Results(energy.double(), forces.double(), stress.double()))
        return found

    def _run(self, candidate: Candidate, graph: Graph, tol: float) -> Evaluation:
        """As `DirectEvaluator` does it."""
        model, mode = self.models[graph.vectors.dtype], MODES[candidate.name]
        compiled_model(model, self.device, mode).encoder.block = candidate.block
        with threads_for(graph.n_atoms):
            found = None
            if graph.n_atoms == self.n_atoms[0]:
                found = evaluate_at_once(model, graph, forces=True, stress=True, tol=tol, compile=mode)
            return found or evaluate(model, graph, forces=True, stress=True, tol=tol, compile=mode)

    def _seconds(self, candidate: Candidate, graph: Graph) -> float:
        """CPU time where one thread computes all, as other processes disturb it less."""
        clock = time.process_time if self.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
        self._wait()
        begun = clock()
        self._run(candidate, graph, TIMED)
        self._wait()
        return clock() - begun

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _deviation(self, candidate: Candidate, dtype: torch.dtype) -> Deviation:
        key = candidate.name, candidate.block, dtype
        if key not in self._known:
            pairs = list(zip(self._results(candidate, dtype), self._exact, strict=True))
            energy, forces, stress = (  # torch's maximum keeps what is not a number
                float(torch.stack([(found[k] - exact[k]).abs().max() for found, exact in pairs]).max())
                for k in range(3)
            )
            self._known[key] = energy, forces, stress
        return self._known[key]

    def _refusal(self, deviation: Deviation, dtype: torch.dtype) -> str:
        names = ("energies", "eV/atom"), ("forces", "eV/Å"), ("stresses", "eV/Å³")
        for (name, unit), found, allowed in zip(names, deviation, self._allowed[dtype], strict=True):
            if not found <= allowed:  # also where it is not a number
                precision = str(dtype).removeprefix("torch.")
                return f"wrong: {name} differ by {found:.1e} {unit} in {precision}, allowed is {allowed:.1e}"
        return ""
