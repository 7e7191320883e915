"""Does the fixed point exist, and is it found, whatever the structure?

The cell is a contraction for every geometry by construction, so no structure can make the solver fail. Put to the
test: 10,000 structures drawn at random (1 to 8 atoms of any elements of the model, in random cells that are periodic
in random directions; 0.01 to 5 times the normal density; atoms as close as 0.3 Å), solved for features and adjoint by
Anderson's method with its defaults from a cold start, to a relative residual of 1e-6.

    python -m benchmarks.theory.contraction [--model NAME_OR_PATH] [--structures 10000]

Also measured, on the structures that took longest and on others at random: the spectral radius of the cell's Jacobian
at the fixed point, by power iteration.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from ase_andersonn.solvers import Anderson, solve
from ase_andersonn.structures.neighbors import neighbor_edges
from benchmarks._cells import Cell, cell_of, model_in, name_of, symbols
from benchmarks._common import RESULTS, drawn, machine, markdown_machine, markdown_table, write_results

TOL = 1e-6
MAX_STEPS = 200
WANTED_STEPS = 40
SHORTEST_DISTANCE = 0.3
MAX_ATOMS = 8
BATCH_EDGES = 40_000
"""Neighbours (with padding) solved together: about 20 MB for each pass over them in float64."""


def normal_volumes(names: Sequence[str]) -> dict[str, float]:
    """Å³ an atom in the element's crystal."""
    crystals = {name: bulk(name) for name in names}
    return {name: atoms.get_volume() / len(atoms) for name, atoms in crystals.items()}


def min_distance(atoms: Atoms) -> float:
    """The smallest distance, Å, or 2 where it is larger; images count."""
    edges = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, 2.0)
    return float(np.sqrt(np.square(edges.vectors).sum(1).min())) if len(edges) else 2.0


def draw(rng: np.random.Generator, volumes: dict[str, float]) -> Atoms:
    """One structure; drawn again until no two atoms are closer than `SHORTEST_DISTANCE`."""
    while True:
        names = rng.choice(list(volumes), size=rng.integers(1, MAX_ATOMS + 1)).tolist()
        density = float(np.exp(rng.uniform(np.log(0.01), np.log(5.0))))
        volume = sum(volumes[name] for name in names) / density
        shape = np.eye(3) + rng.normal(scale=0.35, size=(3, 3))
        if abs(np.linalg.det(shape)) < 0.05:
            continue
        cell = shape * (volume / abs(np.linalg.det(shape))) ** (1 / 3)
        atoms = Atoms(names, scaled_positions=rng.uniform(size=(len(names), 3)), cell=cell, pbc=rng.random(3) < 0.85)
        if len(atoms) > 1 and rng.random() < 0.3:  # a pair that is close at every density
            direction = rng.normal(size=3)
            length = rng.uniform(SHORTEST_DISTANCE, 1.0)
            atoms.positions[1] = atoms.positions[0] + direction * length / np.linalg.norm(direction)
        if min_distance(atoms) >= SHORTEST_DISTANCE:
            atoms.info = {"density": density}
            return atoms


def batches(structures: Sequence[Atoms], cutoff: float) -> Iterator[list[int]]:
    """Indices of structures with about as many neighbours, since all rows of a batch are padded to the longest."""
    longest = [
        int(np.bincount(neighbor_edges(a.positions, a.cell.array, a.pbc, cutoff).center, minlength=len(a)).max())
        for a in structures
    ]
    batch: list[int] = []
    rows = 0
    for index in np.argsort(longest, kind="stable").tolist():
        if batch and (rows + len(structures[index])) * max(longest[index], 8) > BATCH_EDGES:
            yield batch
            batch, rows = [], 0
        batch.append(index)
        rows += len(structures[index])
    yield batch


@torch.no_grad()
def solve_all(model: Any, structures: Sequence[Atoms]) -> dict[str, np.ndarray]:
    """Iterations and final residuals of features and adjoint, of every structure."""
    n = len(structures)
    found = {name: np.zeros(n) for name in ("steps", "adjoint_steps", "residual", "adjoint_residual", "neighbors")}
    settings: dict[str, Any] = {"solver": Anderson(), "tol": TOL, "max_steps": MAX_STEPS}
    for batch in batches(structures, model.cutoff):
        cell = cell_of(model, [structures[index] for index in batch])
        settings["segments"] = cell.segments
        features = solve(cell.f, cell.injection.u, **settings)
        adjoint = solve(cell.adjoint_map(features.value), cell.source(features.value), **settings)
        found["steps"][batch], found["residual"][batch] = features.steps, features.residual
        found["adjoint_steps"][batch], found["adjoint_residual"][batch] = adjoint.steps, adjoint.residual
        found["neighbors"][batch] = cell.graph.mask.sum(1).max().item()
    return found


@torch.no_grad()
def spectral_radius(cell: Cell, steps: int = 300, last: int = 100) -> float:
    """Largest eigenvalue modulus of `∂f/∂z` at the fixed point, from the growth of a vector under its powers."""
    z = solve(cell.f, cell.injection.u, solver=Anderson(), tol=1e-10, max_steps=MAX_STEPS).value
    push = cell.push(z)
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)
    growth = []
    for _ in range(steps):
        v = v / v.norm()
        v = push(v)
        growth.append(float(v.norm().log()))
    return float(np.exp(np.mean(growth[-last:])))


def describe(atoms: Atoms) -> dict[str, Any]:
    return {
        "formula": atoms.get_chemical_formula(),
        "density": atoms.info["density"],
        "min_distance": min_distance(atoms),
        "pbc": atoms.pbc.tolist(),
        "cell": atoms.cell.array.tolist(),
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
    }


def radii(model: Any, structures: Sequence[Atoms], steps: np.ndarray, n: int) -> list[dict[str, Any]]:
    """Spectral radii where the solver took longest, and of as many other structures."""
    order = np.argsort(-steps, kind="stable")
    chosen = [("slowest", k) for k in order[:n]]
    chosen += [("at random", k) for k in np.random.default_rng(1).choice(order[n:], min(n, len(order) - n), False)]
    found = []
    for kind, index in chosen:
        radius = spectral_radius(cell_of(model, structures[index]))
        found.append({"kind": kind, "radius": radius, "steps": int(steps[index]), **describe(structures[index])})
    return found


def summary(found: dict[str, np.ndarray]) -> dict[str, Any]:
    def of(steps: np.ndarray, residual: np.ndarray) -> dict[str, Any]:
        return {
            "converged": int((residual <= TOL).sum()),
            "within_wanted": int(((residual <= TOL) & (steps <= WANTED_STEPS)).sum()),
            "median": float(np.median(steps)),
            "percentile_99": float(np.percentile(steps, 99)),
            "worst": int(steps.max()),
            "worst_residual": float(residual.max()),
            "histogram": np.bincount(steps.astype(int)).tolist(),
        }

    return {
        "features": of(found["steps"], found["residual"]),
        "adjoint": of(found["adjoint_steps"], found["adjoint_residual"]),
    }


def report(data: dict[str, Any]) -> str:
    n = data["n_structures"]
    rows = [
        [
            name,
            f"{entry['converged']:,} of {n:,}",
            f"{entry['within_wanted']:,}",
            f"{entry['median']:.0f}",
            f"{entry['percentile_99']:.0f}",
            entry["worst"],
            f"{entry['worst_residual']:.1e}",
        ]
        for name, entry in data["solves"].items()
    ]
    header = ["solve", "converged", f"within {WANTED_STEPS}", "median", "99 %", "most", "largest residual"]
    kinds = ("slowest", "at random")
    by_kind = {kind: [entry["radius"] for entry in data["radii"] if entry["kind"] == kind] for kind in kinds}
    table = [[k, len(v), f"{np.median(v):.3f}", f"{max(v):.3f}"] for k, v in by_kind.items() if v]
    return "\n".join(
        [
            "# Contraction",
            "",
            f"{data['model']}, {data['dtype']}. {n:,} random structures, 1 to {MAX_ATOMS} atoms, 0.01 to 5 times the",
            f"normal density, closest pair {data['min_distance']:.2f} Å; solved to a residual of {TOL:.0e}, cold,",
            f"in {data['seconds']:.0f} s. Iterations are evaluations of the map, of each structure on its own.",
            "",
            markdown_machine(data["machine"]),
            "",
            markdown_table(header, rows),
            "",
            "Spectral radius of `∂f/∂z` at the fixed point:",
            "",
            markdown_table(["structures", "number", "median", "largest"], table),
        ]
    )


def picture(data: dict[str, Any], name: str) -> None:
    with drawn(RESULTS / f"{name}.png", (6.0, 3.6)) as axes:
        for offset, (solve_name, entry) in zip((-0.2, 0.2), data["solves"].items(), strict=True):
            counts = np.array(entry["histogram"])
            axes.bar(np.arange(len(counts)) + offset, counts, width=0.4, label=solve_name)
        axes.set(xlabel=f"Anderson iterations to a relative residual of {TOL:.0e}", ylabel="structures", yscale="log")
        axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument("--structures", type=int, default=10_000)
    parser.add_argument("--radii", type=int, default=20, help="slowest and random structures whose radius is measured")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="contraction", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = model_in(options.model, getattr(torch, options.dtype))
    rng, volumes = np.random.default_rng(options.seed), normal_volumes(symbols(model))
    structures = [draw(rng, volumes) for _ in range(options.structures)]
    begun = time.perf_counter()
    found = solve_all(model, structures)
    seconds = time.perf_counter() - begun
    worst = int(np.argmax(np.maximum(found["steps"], found["adjoint_steps"])))
    data = {
        "machine": machine(),
        "model": name_of(model),
        "dtype": options.dtype,
        "n_structures": len(structures),
        "seed": options.seed,
        "seconds": seconds,
        "min_distance": min(map(min_distance, structures)),
        "most_neighbors": int(found["neighbors"].max()),
        "solves": summary(found),
        "worst": {"steps": int(found["steps"][worst]), "adjoint_steps": int(found["adjoint_steps"][worst])}
        | describe(structures[worst]),
        "radii": radii(model.double(), structures, found["steps"], options.radii),
    }
    write_results(options.name, data, report(data), ("cell", "pbc", "numbers", "positions"))
    picture(data, options.name)
    print(report(data))


if __name__ == "__main__":
    main()
