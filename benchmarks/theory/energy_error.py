"""How does the error of the energy fall with the residual?

The equilibrium energy L = E(z) + <adjoint, f(z) - z> is stationary in the features z and in the adjoint, so its error
is of second order in their residuals; that of E(z) is of first order. Measured on rattled crystals of every element of
a model, in float64: features and adjoint are solved to residual tolerances 1e-1 ... 1e-6 and compared with the same
structure solved to 1e-13.

    python -m benchmarks.theory.energy_error [--model NAME_OR_PATH]

A solver stops at the first iterate below the tolerance, and hands back f of it, which is closer still. So the errors
are fitted against the tolerance (what a user sets) and against the residuals of what came back (for L the geometric
mean of those of features and adjoint). Besides, the exact features and adjoint are displaced at random, to the same
residuals: this leaves the solver out, which removes some components of the residual sooner than others.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_andersonn.solvers import Anderson, solve
from benchmarks._cells import Cell, cell_of, model_in, name_of, rattled_bulk, symbols
from benchmarks._common import RESULTS, drawn, machine, markdown_machine, markdown_table, write_results

TOLERANCES = np.logspace(-1, -6, 21)
CONVERGED = 1e-13
ROUNDING = 3e-15
"""eV/atom: smaller errors are not fitted."""
SHOWN = range(0, 21, 4)


def relative(after: Tensor, before: Tensor) -> float:
    """|f - z| / |f|."""
    return float((after - before).norm() / after.norm())


def solved(cell: Cell, tol: float) -> tuple[Tensor, Tensor, int]:
    """Features, adjoint and applications of the cell and its transpose, solved as the package does, from cold."""
    settings: dict[str, Any] = {"solver": Anderson(), "tol": tol, "max_steps": 200}
    features = solve(cell.f, cell.injection.u, **settings)
    z = features.value
    adjoint = solve(cell.adjoint_map(z), cell.source(z), **settings)
    return z, adjoint.value, features.evaluations + adjoint.evaluations


@torch.no_grad()
def errors(cell: Cell, seed: int) -> dict[str, np.ndarray]:
    """For every tolerance: errors of both energies (eV/atom), residuals of features and adjoint, applications."""
    z_exact, adjoint_exact, _ = solved(cell, CONVERGED)
    exact = cell.lagrangian(z_exact, adjoint_exact)

    def off(z: Tensor, adjoint: Tensor) -> tuple[float, float]:
        """Errors of L and E(z); differences are taken atom by atom, where little is lost to rounding."""
        pair = cell.lagrangian(z, adjoint) - exact, cell.energies(z) - exact
        return float(pair[0].mean().abs()), float(pair[1].mean().abs())

    generator = torch.Generator().manual_seed(seed)
    in_z, in_adjoint = (torch.randn(z_exact.shape, dtype=z_exact.dtype, generator=generator) for _ in range(2))
    in_z *= 1e-4 / relative(cell.f(z_exact + 1e-4 * in_z), z_exact + 1e-4 * in_z)
    transposed = cell.adjoint_map(z_exact)
    in_adjoint *= 1e-4 / relative(transposed(adjoint_exact + 1e-4 * in_adjoint), adjoint_exact + 1e-4 * in_adjoint)
    rows = []
    for tol in TOLERANCES:
        z, adjoint, applications = solved(cell, float(tol))
        residuals = relative(cell.f(z), z), relative(cell.adjoint_map(z)(adjoint), adjoint)
        displaced = off(z_exact + tol * in_z, adjoint_exact + tol * in_adjoint)
        rows.append((*off(z, adjoint), *residuals, applications, *displaced))
    names = ("error_L", "error_E", "residual", "adjoint_residual", "applications", "displaced_L", "displaced_E")
    return dict(zip(names, np.array(rows).T, strict=True))


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of log y against log x, where y is above rounding."""
    above = y > ROUNDING
    return float(np.polyfit(np.log(x[above]), np.log(y[above]), 1)[0])


def distinct(run: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every pair of iterates once, though several tolerances end at it."""
    _, first = np.unique(np.stack((run["residual"], run["adjoint_residual"])), axis=1, return_index=True)
    return {name: row[first] for name, row in run.items()}


def measure(model: Any, symbol: str, n_atoms: int, n_structures: int) -> dict[str, Any]:
    """Root mean squares over several structures, since an error may pass through zero; and the slopes."""
    structures = [rattled_bulk(symbol, n_atoms, rattle=0.1, seed=seed) for seed in range(n_structures)]
    found = [errors(cell_of(model, atoms), seed) for seed, atoms in enumerate(structures)]
    rms = {name: np.sqrt(np.mean([np.square(run[name]) for run in found], 0)) for name in found[0]}
    each = {name: np.concatenate([distinct(run)[name] for run in found]) for name in found[0]}
    both = np.sqrt(each["residual"] * each["adjoint_residual"])
    slopes = {
        "L_tolerance": slope(TOLERANCES, rms["error_L"]),
        "E_tolerance": slope(TOLERANCES, rms["error_E"]),
        "L_residual": slope(both, each["error_L"]),
        "E_residual": slope(each["residual"], each["error_E"]),
        "L_displaced": slope(TOLERANCES, rms["displaced_L"]),
        "E_displaced": slope(TOLERANCES, rms["displaced_E"]),
    }
    values = {name: [float(v) for v in row] for name, row in rms.items()}
    points = {name: [float(v) for v in row] for name, row in each.items()}
    return {"symbol": symbol, "n_atoms": len(structures[0]), "slopes": slopes, "rms": values, "points": points}


def report(rows: list[dict[str, Any]], facts: dict[str, Any], model: str, n_structures: int) -> str:
    lines = [
        "# Error of the energy against the residual",
        "",
        f"{model}, float64, {n_structures} rattled crystals (0.1 Å) of each element, cold starts, root mean squares.",
        "Slopes of log error against log tolerance, against the residuals of what the solver hands back, and against",
        "the residual of random displacements from the solution, where no solver has a part in it.",
        "",
        markdown_machine(facts),
        "",
    ]
    names = [f"{energy}_{against}" for against in ("tolerance", "residual", "displaced") for energy in "LE"]
    header = ["element", "atoms", *(name.replace("_", ", ").replace("E", "E(z)") for name in names)]
    table = [[row["symbol"], row["n_atoms"], *(f"{row['slopes'][name]:.2f}" for name in names)] for row in rows]
    lines += ["## Slopes", "", markdown_table(header, table), "", "## Errors, eV/atom: L · E(z) (applications)", ""]
    table = [
        [
            f"{TOLERANCES[k]:.0e}",
            *(
                f"{row['rms']['error_L'][k]:.1e} · {row['rms']['error_E'][k]:.1e} ({row['rms']['applications'][k]:.0f})"
                for row in rows
            ),
        ]
        for k in SHOWN
    ]
    lines += [
        markdown_table(["tolerance", *(row["symbol"] for row in rows)], table),
    ]
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], name: str) -> None:
    with drawn(RESULTS / f"{name}.png", (6.2, 4.6)) as axes:
        for index, row in enumerate(rows):
            color, points = f"C{index}", row["points"]
            both = np.sqrt(np.multiply(points["residual"], points["adjoint_residual"]))
            axes.loglog(TOLERANCES, row["rms"]["displaced_E"], "--", color=color, lw=1)
            axes.loglog(TOLERANCES, row["rms"]["displaced_L"], "-", color=color, lw=1, label=row["symbol"])
            axes.loglog(points["residual"], points["error_E"], "o", color=color, mfc="none", ms=3, alpha=0.5)
            axes.loglog(both, points["error_L"], "o", color=color, ms=3, alpha=0.5)
        axes.set(
            xlabel="relative residual", ylabel="error of the energy, eV/atom", xlim=(0.2, 2e-7), ylim=(1e-16, None)
        )
        axes.set_title(
            "full: equilibrium energy L; open, dashed: E(z)\npoints: solved; lines: displaced at random", fontsize=9
        )
        axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument("--atoms", type=int, default=50, help="of each structure, at least")
    parser.add_argument("--structures", type=int, default=6, help="of each element")
    parser.add_argument("--name", default="energy_error", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = model_in(options.model, torch.float64)
    rows = []
    for symbol in symbols(model):
        rows.append(measure(model, symbol, options.atoms, options.structures))
        print(symbol, rows[-1]["slopes"], flush=True)
    facts = machine()
    data = {"machine": facts, "model": name_of(model), "tolerances": TOLERANCES.tolist(), "rows": rows}
    write_results(options.name, data, report(rows, facts, name_of(model), options.structures), ("points",))
    picture(rows, options.name)


if __name__ == "__main__":
    main()
