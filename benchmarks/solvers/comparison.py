"""How many applications of the map, and how much time, does each fixed-point solver need?

Anderson, Picard and Broyden of this project beside torchdeq's Anderson, on maps of stated spectral radius:

    f(z) = z* + rho tanh(P (z - z*) Q)

P averages the 27 points of a cube of a periodic grid, Q is symmetric with spectral norm one: the Jacobian at the
solution z* is rho (P x Q), whose spectral radius is rho. `--model` adds the cell of a trained model on silicon.

    python -m benchmarks.solvers.comparison [--model NAME_OR_PATH]

torchdeq is optional (`pip install --no-deps torchdeq`); without it its columns say so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers import Anderson, Broyden, Picard, Segments, Solver, solve
from benchmarks._cells import cell_of, first_choice, model_in, rattled_bulk
from benchmarks._common import NOT_MEASURED, figure, machine, markdown_machine, markdown_table, rotated, write_results

TOLERANCES = (1e-3, 1e-5, 1e-7)
RADII = (0.6, 0.8, 0.93)
SIDES = (8, 12)
N_CHANNELS = 64
MAX_STEPS = 250
N_PROBLEMS = 8

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Problem:
    """A map, where to start, its spectral radius at the solution, and how many independent problems it holds."""

    name: str
    f: Map
    start: Tensor
    radius: float
    n_problems: int = 1


Method = Callable[[Map, Problem, float], Tensor]


@dataclass
class Run:
    """One solve: |f(z) - z| / |f(z)| of what came back, applications of the map, CPU seconds in all and in the map."""

    residual: float
    evaluations: int
    seconds: float
    map_seconds: float

    @property
    def overhead(self) -> float:
        """Seconds an application that are not the map's."""
        return (self.seconds - self.map_seconds) / self.evaluations


class Timed:
    """A map that counts its applications and the CPU time in them, and keeps the last residual."""

    def __init__(self, f: Map) -> None:
        self.f, self.evaluations, self.seconds = f, 0, 0.0

    def __call__(self, z: Tensor) -> Tensor:
        start = time.process_time()
        value = self.f(z)
        self.seconds += time.process_time() - start
        self.evaluations += 1
        return value


def synthetic(side: int, radius: float, n_problems: int = 1, seed: int = 0) -> Problem:
    """n_problems grids of side^3 rows of 64 channels, float32."""
    generator = torch.Generator().manual_seed(seed)
    n_rows = n_problems * side**3
    grids = torch.arange(n_rows).reshape(n_problems, side, side, side)
    shifts = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]
    neighbors = torch.stack([grids.roll(shift, (1, 2, 3)).reshape(-1) for shift in shifts], 1)
    normal = torch.randn(N_CHANNELS, N_CHANNELS, generator=generator)
    mix = normal + normal.T
    mix = mix / torch.linalg.matrix_norm(mix, 2) / neighbors.shape[1]
    solution = torch.randn(n_rows, N_CHANNELS, generator=generator)

    def f(z: Tensor) -> Tensor:
        gathered = ((z - solution) @ mix).index_select(0, neighbors.reshape(-1))
        return solution + radius * torch.tanh(gathered.view(*neighbors.shape, N_CHANNELS).sum(1))

    name = f"synthetic [{n_rows}, {N_CHANNELS}]" + (f", {n_problems} problems" if n_problems > 1 else "")
    return Problem(name, f, torch.zeros_like(solution), radius, n_problems)


def model_problem(model: EnergyModel, repeat: int) -> Problem:
    """The cell of an equilibrium model on rattled silicon (or its first element), compiled where possible."""
    atoms = rattled_bulk(first_choice(model), 8 * repeat**3)
    cell = cell_of(model, atoms, "auto")
    start = cell.injection.u.contiguous()
    name = f"{type(model).__name__} cell [{len(atoms)}, {start.shape[1]}]"
    return Problem(name, cell.f, start, spectral_radius(cell.f, start))


@torch.no_grad()
def spectral_radius(f: Map, start: Tensor, steps: int = 150, last: int = 50) -> float:
    """Largest eigenvalue modulus of the Jacobian at the fixed point, by power iteration with central differences."""
    z = solve(f, start, solver=Anderson(), tol=1e-6, max_steps=MAX_STEPS).value
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    growth = []
    for _ in range(steps):
        v = v * (1e-3 * z.norm() / v.norm())
        w = (f(z + v) - f(z - v)) / 2
        growth.append((w.norm() / v.norm()).log().item())
        v = w
    return float(torch.tensor(growth[-last:]).mean().exp())


def own(solver: Solver) -> Method:
    def run(f: Map, problem: Problem, tol: float) -> Tensor:
        start, n, segments = problem.start, problem.n_problems, None
        if n > 1:
            segments = Segments(torch.arange(n).repeat_interleave(len(start) // n), n)
        return solve(f, start, solver=solver, tol=tol, max_steps=MAX_STEPS, segments=segments).value

    return run


def torchdeqs(by_row: bool) -> Method:
    """torchdeq's Anderson with its defaults and relative residuals; one window a problem, or one a row."""
    from torchdeq.solver.anderson import anderson_solver

    def run(f: Map, problem: Problem, tol: float) -> Tensor:
        start = problem.start

        def flat(z: Tensor) -> Tensor:
            return f(z.reshape(start.shape)).reshape(z.shape)

        x0 = start if by_row else start.view(problem.n_problems, -1)
        value, _, _ = anderson_solver(flat, x0, max_iter=MAX_STEPS, tol=tol, stop_mode="rel")
        return value.reshape(start.shape)

    return run


def candidates() -> dict[str, Method | None]:
    """Solvers by name; None for one that is not installed."""
    found: dict[str, Method | None] = {"Anderson": own(Anderson()), "Picard": own(Picard()), "Broyden": own(Broyden())}
    for name, by_row in (("torchdeq Anderson", False), ("torchdeq Anderson, by row", True)):
        try:
            found[name] = torchdeqs(by_row)
        except ImportError:
            found[name] = None
    return found


@torch.no_grad()
def measure(problem: Problem, tol: float, solvers: dict[str, Method | None], repeats: int) -> dict[str, list[Run]]:
    """Every solver `repeats` times, in turn; the first round is not counted."""
    present = {name: solver for name, solver in solvers.items() if solver is not None}
    runs: dict[str, list[Run]] = {name: [] for name in present}
    for turn in range(-1, repeats):
        for name in rotated(list(runs), turn):
            f = Timed(problem.f)
            start = time.process_time()
            value = present[name](f, problem, tol)
            seconds = time.process_time() - start
            difference, size = (
                x.reshape(problem.n_problems, -1).norm(dim=1) for x in (problem.f(value) - value, value)
            )
            residual = (difference / size).max()
            if turn >= 0:
                runs[name].append(Run(float(residual), f.evaluations, seconds, f.seconds))
    return runs


def summary(runs: list[Run], tol: float) -> dict[str, Any]:
    """Medians; `reached` says whether the value that came back is a solution to the tolerance (twice, for rounding)."""
    map_us = statistics.median(1e6 * r.map_seconds / r.evaluations for r in runs)
    overhead_us = statistics.median(1e6 * r.overhead for r in runs)
    return {
        "reached": runs[0].residual <= 2 * tol,
        "residual": runs[0].residual,
        "evaluations": runs[0].evaluations,
        "ms": statistics.median(1e3 * r.seconds for r in runs),
        "map_us": map_us,
        "overhead_us": overhead_us,
        "overhead_ratio": overhead_us / map_us,
    }


def cell_text(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return NOT_MEASURED
    text = f"{entry['evaluations']} · {figure(entry['ms'])} · {100 * entry['overhead_ratio']:.0f} %"
    return text if entry["reached"] else f"({text}; residual {entry['residual']:.0e})"


def report(rows: list[dict[str, Any]], names: list[str], facts: dict[str, Any]) -> str:
    lines = [
        "# Fixed-point solvers",
        "",
        "Each entry: applications of the map · CPU time of the solve, ms · overhead of the solver in percent of the",
        "map's own time. One thread, float32, medians of solves taken in turn; relative residuals, of the worst",
        f"problem where there are several; at most {MAX_STEPS} applications. In brackets: the residual of what came",
        "back is above the tolerance. `by row` is torchdeq's reading of an array as one problem a row.",
        "",
        markdown_machine(facts),
    ]
    for problem in dict.fromkeys((row["problem"], row["radius"]) for row in rows):
        chosen = [row for row in rows if (row["problem"], row["radius"]) == problem]
        map_us = statistics.median(e["map_us"] for row in chosen for e in row["solvers"].values() if e is not None)
        lines += ["", f"## {problem[0]}, ρ = {problem[1]:.2f}, map {map_us:.0f} µs", ""]
        table = [[f"{row['tol']:.0e}", *(cell_text(row["solvers"].get(name)) for name in names)] for row in chosen]
        lines.append(markdown_table(["residual", *names], table))
    lines += ["", "## Overhead of an iteration, µs (median over radii and residuals)", ""]
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    table = []
    for name in names:
        figures = []
        for problem_name in problems:
            entries = [row["solvers"].get(name) for row in rows if row["problem"] == problem_name]
            known = [entry["overhead_us"] for entry in entries if entry is not None]
            figures.append(f"{statistics.median(known):.0f}" if known else NOT_MEASURED)
        table.append([name, *figures])
    lines.append(markdown_table(["solver", *problems], table))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path of a trained model whose cell is measured too")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--name", default="solvers", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    solvers = candidates()
    problems = [synthetic(side, radius) for side in SIDES for radius in RADII]
    problems += [synthetic(side // 2, radius, N_PROBLEMS) for side in SIDES for radius in RADII]
    if options.model:
        model = model_in(options.model, torch.float32)
        problems += [model_problem(model, repeat) for repeat in (4, 6)]
    rows = []
    for problem in problems:
        for tol in TOLERANCES:
            runs = measure(problem, tol, solvers, options.repeats)
            found = {name: summary(runs[name], tol) if name in runs else None for name in solvers}
            rows.append({"problem": problem.name, "radius": problem.radius, "tol": tol, "solvers": found})
            print(
                problem.name, f"rho {problem.radius:.2f}", tol, {n: cell_text(e) for n, e in found.items()}, flush=True
            )
    facts = machine()
    files = write_results(options.name, {"machine": facts, "rows": rows}, report(rows, list(solvers), facts))
    print(*files, sep="\n")


if __name__ == "__main__":
    main()
