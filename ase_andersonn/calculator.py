"""The ASE calculator."""

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.geometry import find_mic
from ase.stress import full_3x3_to_voigt_6_stress

from .backends import CompileMode, exact_matmul, find_compiler, resolve_device, resolve_dtype
from .inputs.convert import to_atoms
from .inputs.graph import graph_from_atoms
from .inputs.neighbors import NeighborList
from .models.base import EnergyModel
from .models.checkpoint import DEFAULT_MODEL, load_model
from .models.derivatives import Evaluation, evaluate
from .models.equilibrium import cold_start
from .models.warm_start import WarmStart

NEARBY = 0.5
"""Å: when an atom has moved further since the last call, the solves start cold."""
EAGER_SECONDS = 20.0
"""Work done before `compile="auto"` spends time on compiling."""


class ConvergenceError(CalculationFailed):
    """A fixed point was not reached; nothing is returned."""


class AndersoNN(Calculator):
    """Energies, forces and stresses of an equilibrium potential.

    Args:
        model: a packaged model's name, the path of a model file, a model, or None for the packaged default.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, `"cuda:0"`.
        dtype: `"float32"` or `"float64"`.
        tol: energy tolerance, eV/atom. Features and adjoint are solved to relative residuals of `√tol`, and further
            while the estimated error of the energy is larger.
        warm_start: whether a call may start from the solutions of the calls before it, as MD and relaxations want.
            Results then depend on the history within the tolerance; without, they are repeatable bit for bit on one
            machine (with `"auto"`, up to where it compiles).
        skin: Å by which the neighbour list is larger than the cutoff, so that it can be kept while atoms move; without
            warm starts a new list is made at every call.
        compile: `True`, `False`, or `"auto"`: compile once a calculator has worked long enough for it to pay.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged model file, an unknown device or dtype, or a tolerance that is not positive.
        RuntimeError: for `compile=True` where there is no compiler.

    What a calculation cost is in `diagnostics`: applications of the cell and its transpose (`evaluations`), largest
    residuals (`residual`, `adjoint_residual`), the estimated energy error (`energy_error`, eV/atom), the solver's
    safeguards (`safeguards`), rebuilds of the neighbour list (`rebuilds`), how the functions run (`backend`), seconds
    (`times`).
    """

    name = "andersonn"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012 (the form ASE asks for)
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: str | Path | EnergyModel | None = None,
        *,
        device: str = "auto",
        dtype: str = "float32",
        tol: float = 1e-6,
        warm_start: bool = True,
        skin: float = 0.5,
        compile: CompileMode = "auto",
    ) -> None:
        if not (math.isfinite(tol) and tol > 0):
            raise ValueError(f"tol is {tol}; it is an energy tolerance in eV/atom and has to be positive.")
        self.torch_device, self.torch_dtype = resolve_device(device), resolve_dtype(dtype)
        if compile is True and find_compiler(self.torch_device)[0] is None:
            raise RuntimeError(f"compile=True is not possible: {find_compiler(self.torch_device)[1]}.")
        source = model if isinstance(model, EnergyModel) else load_model(model)
        self.model = _own(source, self.torch_device, self.torch_dtype)
        self.tol, self.compile = tol, compile
        self.neighbor_list = NeighborList(self.model.cutoff, skin if warm_start else 0.0)
        self.warm_start = WarmStart(math.sqrt(tol)) if warm_start else None
        self.diagnostics: dict[str, Any] = {}
        self._worked = 0.0
        self._positions: Any = None
        self._warned: set[tuple[int, ...]] = set()
        super().__init__(  # type: ignore[no-untyped-call]
            model=DEFAULT_MODEL if model is None else str(model) if isinstance(model, str | Path) else "custom",
            dtype=str(self.torch_dtype).removeprefix("torch."),
            tol=tol,
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `ase.calculators.calculator.Calculator.calculate`.

        Raises:
            ValueError: for structures without a meaning (empty, NaN, two atoms on one site) and unknown elements.
            PropertyNotImplementedError: for the stress of a structure that is not periodic in three directions.
            ConvergenceError: if a fixed point is not reached.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.results = {}
        before, self._positions = self._positions, None  # a call that fails leaves no history behind
        structure = self.atoms
        assert structure is not None  # set by ASE
        periodic = bool(structure.pbc.all())
        if not periodic and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(
                f"stress needs a cell that is periodic in three directions; pbc is {structure.pbc.tolist()}."
            )
        self._warn_of_combinations(structure)
        begun = time.perf_counter()
        if self.warm_start is None:
            self.neighbor_list.reset()  # kept edges are summed in an order that depends on where they were found
        graph = graph_from_atoms(
            structure,
            self.model.cutoff,
            dtype=self.torch_dtype,
            device=self.torch_device,
            neighbor_list=self.neighbor_list,
        )
        listed = time.perf_counter()
        self._follow(structure, before, system_changes)
        derivatives = any(name not in ("energy", "free_energy", "energies") for name in properties)
        with exact_matmul():
            evaluation = evaluate(
                self.model,
                graph,
                forces=derivatives,
                stress=derivatives and periodic,
                tol=self.tol,
                begin=cold_start if self.warm_start is None else self.warm_start.begin,
                compile=self._compile_mode(),
            )
        results = _as_results(evaluation)[0]
        done = time.perf_counter()
        self._worked += done - begun
        self._describe(evaluation, {"neighbors": listed - begun, "evaluate": done - listed})
        self._check(evaluation)
        if self.warm_start is not None:
            self.warm_start.end(evaluation.equilibrium)
        self._positions = structure.positions.copy()
        self.results = results

    def evaluate(
        self, structures: Sequence[Any], *, forces: bool = True, stress: bool = False, batch_atoms: int = 2000
    ) -> list[dict[str, Any]]:
        """Results of many structures, evaluated in batches; each as if it were alone, within the tolerance.

        Args:
            structures: `Atoms`, pymatgen structures or molecules, phonopy atoms.
            forces: whether forces are wanted.
            stress: whether stress is wanted; structures that are not periodic in three directions have none.
            batch_atoms: atoms evaluated at once, about.

        Returns:
            for each structure a dictionary as the calculator's `results`.
        """
        frames = [to_atoms(structure) for structure in structures]
        for frame in frames:
            self._warn_of_combinations(frame)
        results: list[dict[str, Any]] = []
        for chunk in _chunks(frames, batch_atoms):
            graph = graph_from_atoms(chunk, self.model.cutoff, dtype=self.torch_dtype, device=self.torch_device)
            begun = time.perf_counter()
            with exact_matmul():
                evaluation = evaluate(
                    self.model, graph, forces=forces, stress=stress, tol=self.tol, compile=self._compile_mode()
                )
            spent = time.perf_counter() - begun
            self._worked += spent
            self._describe(evaluation, {"evaluate": spent})
            self._check(evaluation)
            results += _as_results(evaluation)
        return results

    def set(self, **kwargs: Any) -> Any:
        """Settings are given when a calculator is made, and do not change.

        Raises:
            ValueError: if it is asked to change one.
        """
        if self.parameters and kwargs:  # ASE's constructor sets them when there are none yet
            raise ValueError(f"{', '.join(kwargs)} cannot be changed here; make a new AndersoNN with these arguments.")
        return super().set(**kwargs)  # type: ignore[no-untyped-call]

    def reset(self) -> None:
        """Forget results and history."""
        super().reset()  # type: ignore[no-untyped-call]
        self.diagnostics = {}
        self._positions = None
        if self.warm_start is not None:
            self.warm_start.reset()

    def _follow(self, atoms: Atoms, before: Any, changes: Sequence[str]) -> None:
        """Drop the history where this structure is not close to the last one, whose positions are `before`."""
        if self.warm_start is None:
            return
        if before is None or before.shape != atoms.positions.shape or {"numbers", "pbc"} & set(changes):
            self.warm_start.reset()
            return
        moved, _ = find_mic(atoms.positions - before, atoms.cell, atoms.pbc)
        if np.square(moved).sum(1).max() > NEARBY**2:
            self.warm_start.reset()

    def _compile_mode(self) -> CompileMode:
        if self.compile != "auto":
            return self.compile
        return "auto" if self._worked > EAGER_SECONDS else False

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
            "device": str(self.torch_device),
            "times": times,
        }

    def _check(self, evaluation: Evaluation) -> None:
        eq = evaluation.equilibrium
        if not bool(eq.converged.all()):
            raise ConvergenceError(
                f"the equilibrium was not reached: residuals {self.diagnostics['residual']:.1e} (features) and "
                f"{self.diagnostics['adjoint_residual']:.1e} (adjoint), wanted {math.sqrt(self.tol):.1e}. "
                "Ask for a larger tol, or for dtype='float64' where tol is below 1e-12."
            )
        if not bool(torch.isfinite(evaluation.energy).all()):
            raise CalculationFailed("the energy is not finite; are there atoms much too close to each other?")

    def _warn_of_combinations(self, atoms: Atoms) -> None:
        """Say once when elements stand together that never did in the training data."""
        known = self.model.card.get("combinations")
        here = tuple(sorted(set(atoms.numbers.tolist())))
        if not known or here in self._warned or any(set(here) <= set(c) for c in known):
            return
        self._warned.add(here)
        symbols = sorted(atoms.symbols.species())
        warnings.warn(
            f"the model was not trained on structures that hold the elements {symbols} together: "
            "its energies for them are an extrapolation without known errors.",
            stacklevel=4,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "warm_start": self.warm_start and WarmStart(math.sqrt(self.tol)), "_positions": None}


def _own(model: EnergyModel, device: torch.device, dtype: torch.dtype) -> EnergyModel:
    """The model itself where it fits, else a copy: the caller's model stays as it is."""
    import copy

    parameter = next(model.parameters())
    if (parameter.device, parameter.dtype) != (device, dtype) or parameter.requires_grad:
        model = copy.deepcopy(model).to(device=device, dtype=dtype)
    return model.eval().requires_grad_(False)


def _chunks(frames: Sequence[Atoms], batch_atoms: int) -> list[list[Atoms]]:
    """Consecutive frames of at most about `batch_atoms` atoms."""
    chunks: list[list[Atoms]] = []
    filled = batch_atoms
    for frame in frames:
        if filled + len(frame) > batch_atoms:
            chunks.append([])
            filled = 0
        chunks[-1].append(frame)
        filled += len(frame)
    return chunks


def _as_results(evaluation: Evaluation) -> list[dict[str, Any]]:
    """ASE's results of each structure: float64, stresses as six numbers."""
    counts = evaluation.n_per_system.tolist()
    ends = np.cumsum(counts)
    energy = evaluation.energy.cpu().numpy()
    rows: dict[str, Any] = {"energies": evaluation.energies, "forces": evaluation.forces}
    rows = {name: t.cpu().double().numpy() for name, t in rows.items() if t is not None}
    if evaluation.stresses is not None and evaluation.stress is not None:
        rows["stresses"] = full_3x3_to_voigt_6_stress(evaluation.stresses.cpu().double().numpy())
        stress = full_3x3_to_voigt_6_stress(evaluation.stress.cpu().double().numpy())
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


__all__ = ["AndersoNN", "ConvergenceError"]
