"""How fast is a GPU, how many atoms does it hold, and do its results agree with those of the CPU?

    python -m benchmarks.speed.gpu [--model NAME_OR_PATH] [--parts solver evaluate md training agreement]
    python -m benchmarks.speed.gpu --device cpu --small        # the same on the CPU, on small systems

- solver: features and adjoint to a residual of 1e-3 from a cold start, residuals read every 1, 2, 3 iterations; one
  application of the cell and of its transpose.
- evaluate: energy and forces of a graph that is on the device; the graph itself; memory at the peak, per atom.
- md: a step of NVE molecular dynamics through the ASE calculator, neighbour list and all, with warm starts.
- training: a step of the optimiser on forces and energies, batches of structures of 64 atoms.
- agreement: energies, forces and stress beside those of the CPU in float64.

All in float32 and float64, eagerly and compiled, for rattled crystals of 10^3 to 10^6 atoms. Device times are taken
with CUDA events around work that was warmed up, host times after synchronising. What does not fit is reported as such.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ase import units
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN
from ase_andersonn.backends import CompileMode, resolve_device, resolve_dtype
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers import Anderson, solve
from ase_andersonn.structures.graph import Graph, graph_from_atoms
from benchmarks._cells import cell_of, first_choice, model_in, name_of, rattled_bulk
from benchmarks._common import figure, machine, markdown_machine, markdown_table, write_results

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SMALL = (64, 216)
MOST_MD = 200_000
"""Atoms; beyond, the host's neighbour list takes seconds a step."""
MOST_TRAINING = 20_000
MOST_COMPARED = 10_000
STRUCTURE = 64
CHECKS = (1, 2, 3)
RESIDUAL = 1e-3
MODES: dict[str, CompileMode] = {"eager": False, "compiled": "auto"}

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
    """Host time of whole steps: results come back to the host at every one, so nothing is left running."""
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


Part = Callable[[Device, EnergyModel, int, CompileMode], Row]
PARTS: dict[str, tuple[Part, int]] = {
    "solver": (measure_solver, 10**9),
    "evaluate": (measure_evaluate, 10**9),
    "md": (measure_md, MOST_MD),
    "training": (measure_training, MOST_TRAINING),
    "agreement": (measure_agreement, MOST_COMPARED),
}


def measure_all(device: Device, options: argparse.Namespace) -> Iterator[Row]:
    """One row for each part, precision, mode and size; `failed` says why one has no figures."""
    for dtype in options.dtypes:
        model = model_in(options.model, resolve_dtype(dtype), device.device)
        for part in options.parts:
            function, most = PARTS[part]
            for mode in options.modes:
                for n_atoms in (size for size in options.sizes if size <= most):
                    row: Row = {"part": part, "dtype": dtype, "mode": mode, "n_atoms": n_atoms}
                    try:
                        row |= function(device, model, n_atoms, MODES[mode])
                    except torch.OutOfMemoryError:
                        row["failed"] = "out of memory"
                    device.free()
                    yield row
                    if "failed" in row:
                        break


def kib(value: float | None) -> str:
    return figure(None if value is None else value / 1024)


def pair(values: list[int]) -> str:
    return " + ".join(map(str, values))


COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "solver": {
        "f, ms": lambda row: figure(row["cell_ms"]),
        "fᵀ, ms": lambda row: figure(row["transposed_ms"]),
        **{
            f"read every {k}: ms (applications)": lambda row, k=k: (
                f"{figure(row[f'features_ms_{k}'] + row[f'adjoint_ms_{k}'])} ({pair(row[f'evaluations_{k}'])})"
            )
            for k in CHECKS
        },
    },
    "evaluate": {
        "energy + forces, ms": lambda row: figure(row["ms"]),
        "µs/atom": lambda row: figure(row["us_per_atom"]),
        "applications": lambda row: pair(row["evaluations"]),
        "energy alone, ms": lambda row: figure(row["energy_ms"]),
        "graph, ms": lambda row: figure(row["graph_ms"]),
        "peak, KiB/atom": lambda row: kib(row["peak_bytes_per_atom"]),
        "graph, KiB/atom": lambda row: kib(row["graph_bytes_per_atom"]),
    },
    "md": {
        "step, ms": lambda row: figure(row["ms"]),
        "µs/atom": lambda row: figure(row["us_per_atom"]),
        "of it neighbours, ms": lambda row: figure(row["neighbors_ms"]),
        "applications": lambda row: figure(row["evaluations"]),
    },
    "training": {
        "step, ms": lambda row: figure(row["ms"]),
        "µs/atom": lambda row: figure(row["us_per_atom"]),
        "structures": lambda row: str(row["n_systems"]),
        "peak, KiB/atom": lambda row: kib(row["peak_bytes_per_atom"]),
    },
    "agreement": {
        "energy, eV/atom": lambda row: f"{row['energy']:.1e}",
        "forces, relative": lambda row: f"{row['forces']:.1e}",
        "stress, relative": lambda row: f"{row['stress']:.1e}",
    },
}
TITLES = {
    "solver": f"Solver: features and adjoint to {RESIDUAL:.0e}, cold",
    "evaluate": "Energy and forces",
    "md": "A step of molecular dynamics, warm starts",
    "training": "A step of training",
    "agreement": "Largest difference from the CPU in float64",
}


def report(rows: list[Row], facts: dict[str, Any], model: str) -> str:
    lines = [
        "# GPU" if facts["device"] != "cpu" else "# CPU, as on a GPU",
        "",
        f"{model}.",
        "",
        markdown_machine(facts),
    ]
    for part, columns in COLUMNS.items():
        chosen = [row for row in rows if row["part"] == part]
        if not chosen:
            continue
        table = [
            [
                f"{row['n_atoms']:,}",
                row["dtype"],
                row.get("backend", row["mode"]),
                *([row["failed"]] * len(columns) if "failed" in row else [show(row) for show in columns.values()]),
            ]
            for row in chosen
        ]
        lines += ["", f"## {TITLES[part]}", "", markdown_table(["atoms", "dtype", "runs", *columns], table)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small systems, as for a test on the CPU")
    parser.add_argument("--sizes", type=int, nargs="+", help="atoms, at least")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--name", default="gpu", help="of the result files")
    options = parser.parse_args()
    options.sizes = options.sizes or (SMALL if options.small else SIZES)
    device = Device(options.device)
    if not device.cuda:
        torch.set_num_threads(1)
    facts = machine() | device.facts()
    text = name_of(model_in(options.model, torch.float32))
    rows: list[Row] = []
    for row in measure_all(device, options):
        print(row, flush=True)
        rows.append(row)
        write_results(options.name, {"machine": facts, "model": text, "rows": rows}, report(rows, facts, text))
    print(report(rows, facts, text))


if __name__ == "__main__":
    main()
