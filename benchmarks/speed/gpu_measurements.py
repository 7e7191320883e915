"""Measurements of one device: solver, evaluation, molecular dynamics, training, agreement with the CPU."""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN
from ase_andersonn.backends import CompileMode, resolve_device
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers import Anderson, solve
from ase_andersonn.structures.graph import Graph, graph_from_atoms
from benchmarks._cells import cell_of, first_choice, rattled_bulk

STRUCTURE = 64
CHECKS = (1, 2, 3)
RESIDUAL = 1e-3
Row = dict[str, Any]


class Device:
    """Times and memory of one device."""

    def __init__(self, name: str) -> None:
        self.device = resolve_device(name)
        self.cuda = self.device.type == "cuda"

    def ready(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, function: Callable[[], object], repeats: int = 7, warm: int = 2) -> float:
        """Median time of one call; on a GPU between two events on its stream."""
        for _ in range(warm):
            function()
        self.ready()
        return statistics.median(self._once(function) for _ in range(repeats))

    def _once(self, function: Callable[[], object]) -> float:
        if not self.cuda:
            begun = time.perf_counter()
            function()
            return 1e3 * (time.perf_counter() - begun)
        with torch.cuda.device(self.device):
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            function()
            last.record()
            last.synchronize()
        elapsed: float = first.elapsed_time(last)
        return elapsed

    def peak(self, function: Callable[[], object]) -> int | None:
        """Bytes allocated at the peak of a call, beyond those allocated before; None on the CPU."""
        if not self.cuda:
            return None
        self.ready()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        function()
        self.ready()
        return torch.cuda.max_memory_allocated(self.device) - before

    def free(self) -> None:
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        if not self.cuda:
            return {"device": "cpu", "threads": torch.get_num_threads()}
        found = torch.cuda.get_device_properties(self.device)
        return {
            "device": found.name,
            "memory_GiB": round(found.total_memory / 2**30, 1),
            "capability": f"{found.major}.{found.minor}",
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }


def measure_solver(device: Device, model: EnergyModel, n_atoms: int, mode: CompileMode) -> Row:
    cell = cell_of(model, rattled_bulk(first_choice(model), n_atoms), mode)
    size = cell.graph.n_atoms
    with torch.no_grad():
        start = cell.injection.u
        features = solve(cell.f, start, solver=Anderson(), tol=RESIDUAL, max_steps=60)
        z = features.value
        transposed, source = cell.adjoint_map(z), cell.source(z)
        row: Row = {
            "n_atoms": size,
            "backend": cell.backend,
            "cell_ms": device.milliseconds(lambda: cell.f(z)),
            "transposed_ms": device.milliseconds(lambda: transposed(source)),
        }
        for every in CHECKS:
            settings: Any = {"solver": Anderson(), "tol": RESIDUAL, "max_steps": 60, "check_every": every}
            both = solve(cell.f, start, **settings), solve(transposed, source, **settings)
            row[f"evaluations_{every}"] = [solution.evaluations for solution in both]
            row[f"features_ms_{every}"] = device.milliseconds(lambda s=settings: solve(cell.f, start, **s))
            row[f"adjoint_ms_{every}"] = device.milliseconds(lambda s=settings: solve(transposed, source, **s))
    return row


def measure_evaluate(device: Device, model: EnergyModel, n_atoms: int, mode: CompileMode) -> Row:
    atoms = rattled_bulk(first_choice(model), n_atoms)
    dtype = next(model.parameters()).dtype

    def build() -> Graph:
        return graph_from_atoms(atoms, model.cutoff, dtype=dtype, device=device.device)

    graph = build()

    def run() -> Any:
        return evaluate(model, graph, forces=True, compile=mode)

    found = run()
    tensors = [value for value in vars(graph).values() if isinstance(value, torch.Tensor)]
    peak = device.peak(run)
    ms = device.milliseconds(run, repeats=5, warm=1)
    return {
        "n_atoms": len(atoms),
        "n_neighbors": graph.n_neighbors,
        "backend": found.equilibrium.backend,
        "evaluations": found.equilibrium.evaluations,
        "ms": ms,
        "us_per_atom": 1e3 * ms / len(atoms),
        "energy_ms": device.milliseconds(lambda: evaluate(model, graph, compile=mode), repeats=5, warm=1),
        "graph_ms": device.milliseconds(build, repeats=3, warm=1),
        "graph_bytes_per_atom": sum(tensor.nbytes for tensor in tensors) / len(atoms),
        "peak_bytes_per_atom": None if peak is None else peak / len(atoms),
    }


def measure_md(device: Device, model: EnergyModel, n_atoms: int, mode: CompileMode, steps: int = 20) -> Row:
    """Host time of steps: results come back to the host at every one, so nothing is left running."""
    atoms = rattled_bulk(first_choice(model), n_atoms)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    atoms.calc = AndersoNN(model, device=str(device.device), dtype=dtype, compile=mode is not False)
    atoms.set_momenta(0.0 * atoms.positions)
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(8)  # compiles, and fills the history of the warm start
    times, neighbors, applications = [], [], []
    for _ in range(steps):
        begun = time.perf_counter()
        dynamics.run(1)
        times.append(1e3 * (time.perf_counter() - begun))
        known = atoms.calc.diagnostics
        neighbors.append(1e3 * known["times"]["neighbors"])
        applications.append(sum(known["evaluations"].values()))
    ms = statistics.median(times)
    return {
        "n_atoms": len(atoms),
        "backend": atoms.calc.diagnostics["backend"],
        "ms": ms,
        "us_per_atom": 1e3 * ms / len(atoms),
        "neighbors_ms": statistics.median(neighbors),
        "evaluations": statistics.mean(applications),
    }


def measure_training(device: Device, model: EnergyModel, n_atoms: int, mode: CompileMode) -> Row:
    frames = [rattled_bulk(first_choice(model), STRUCTURE, 0.1, seed) for seed in range(max(1, n_atoms // STRUCTURE))]
    dtype = next(model.parameters()).dtype
    graph = graph_from_atoms(frames, model.cutoff, dtype=dtype, device=device.device)
    model.requires_grad_(True)
    try:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            found = evaluate(model, graph, forces=True, compile=mode)
            loss = found.forces.square().mean() + (found.energy / graph.n_per_system).square().mean()
            loss.backward()
            optimizer.step()

        step()
        peak = device.peak(step)
        ms = device.milliseconds(step, repeats=5, warm=1)
    finally:
        model.requires_grad_(False)
    return {
        "n_atoms": graph.n_atoms,
        "n_systems": graph.n_systems,
        "ms": ms,
        "us_per_atom": 1e3 * ms / graph.n_atoms,
        "peak_bytes_per_atom": None if peak is None else peak / graph.n_atoms,
    }


def measure_agreement(device: Device, model: EnergyModel, n_atoms: int, mode: CompileMode) -> Row:
    """Largest differences from the CPU in float64, solved as tightly as the precision allows."""
    atoms = rattled_bulk(first_choice(model), n_atoms)
    dtype = next(model.parameters()).dtype
    tol = 1e-10 if dtype == torch.float32 else 1e-22
    here = graph_from_atoms(atoms, model.cutoff, dtype=dtype, device=device.device)
    found = evaluate(model, here, forces=True, stress=True, tol=tol, compile=mode)
    there = graph_from_atoms(atoms, model.cutoff, dtype=torch.float64)
    exact = evaluate(
        copy.deepcopy(model).to(device="cpu", dtype=torch.float64), there, forces=True, stress=True, tol=1e-22
    )
    row: Row = {"n_atoms": len(atoms), "backend": found.equilibrium.backend}
    row["energy"] = float((found.energy.cpu() - exact.energy).abs().max()) / len(atoms)
    for name in ("forces", "stress"):
        mine, right = getattr(found, name).cpu().double(), getattr(exact, name)
        row[name] = float((mine - right).abs().max() / right.abs().max())
    return row
