"""Is the energy surface smooth where an atom passes the cutoff of its neighbours?

One atom is moved through a rattled crystal, and through the cutoff of a single other atom, in float64 with the
equilibrium converged to rounding. At every place where a distance passes the cutoff, energy and forces are sampled
densely, and the smooth part is removed by fourth differences,

    y(-2h) - 4 y(-h) + 6 y(0) - 4 y(h) + y(2h),

which are of the order h^4 where y is smooth and at least the size of a jump where there is one. At a cutoff where the
energy has k continuous derivatives they are of the order h^(k + 1), those of the forces h^k: a jump would stay as h
goes to zero.

    python -m benchmarks.theory.smoothness [--model NAME_OR_PATH]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms

from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import graph_from_atoms
from ase_andersonn.structures.neighbors import neighbor_edges
from benchmarks._cells import model_in, name_of, rattled_bulk, symbols
from benchmarks._common import RESULTS, drawn, machine, markdown_machine, markdown_table, write_results

SPACINGS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""Å."""
HALF = 6
"""Samples on each side of a crossing."""
PATH = 1.0
"""Å."""
TOL = 1e-26
"""eV/atom: residuals of 1e-13."""
BATCH = 200
"""Atoms evaluated at once, about."""
WEIGHTS = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
OF_A_STEP = 3.0
"""Largest fourth difference of a jump by one."""


def crystal(symbol: str) -> tuple[Atoms, np.ndarray]:
    """A small rattled crystal, and the direction its first atom is moved in."""
    direction = np.random.default_rng(3).normal(size=3)
    return rattled_bulk(symbol, 8, rattle=0.05, seed=2), direction / np.linalg.norm(direction)


def dimer(symbol: str, cutoff: float) -> tuple[Atoms, np.ndarray]:
    """Two atoms almost a cutoff apart, moved away from each other."""
    atoms = Atoms([symbol, symbol], positions=[[cutoff - 0.5 * PATH, 0.0, 0.0], [0.0, 0.0, 0.0]])
    return atoms, np.array([1.0, 0.0, 0.0])


def crossings(atoms: Atoms, direction: np.ndarray, cutoff: float) -> list[float]:
    """Places on the path where a distance of the moved atom passes the cutoff."""
    edges = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff + PATH)
    # images of the moved atom move with it: those distances stay
    d = edges.vectors[(edges.center == 0) & (edges.other != 0)]
    along = d @ direction
    square = along**2 - np.square(d).sum(1) + cutoff**2
    along, root = along[square > 0], np.sqrt(square[square > 0])
    places = np.concatenate((along - root, along + root))
    margin = HALF * SPACINGS[0]
    return sorted(places[(places > margin) & (places < PATH - margin)].tolist())


@torch.no_grad()
def sample(model: EnergyModel, atoms: Atoms, direction: np.ndarray, places: Sequence[float]) -> np.ndarray:
    """Energy, and the force on every atom, at places on the path: [n_places, 1 + 3 n_atoms], eV and eV/Å."""
    rows = []
    per_batch = max(1, BATCH // len(atoms))
    for start in range(0, len(places), per_batch):
        frames = []
        for place in places[start : start + per_batch]:
            frames.append(atoms.copy())
            frames[-1].positions[0] += place * direction
        graph = graph_from_atoms(frames, model.cutoff, dtype=torch.float64)
        found = evaluate(model, graph, forces=True, tol=TOL)
        # without the reference energies, which are large and cost digits
        own = found.equilibrium.lagrangian.view(len(frames), -1).sum(1, keepdim=True)
        assert found.forces is not None
        rows.append(torch.cat((own, found.forces.view(len(frames), -1)), 1).numpy())
    return np.concatenate(rows)


def fourth_differences(samples: np.ndarray) -> np.ndarray:
    """[n_places, k] -> [n_places - 4, k]."""
    n = len(samples) - 4
    return sum(weight * samples[k : k + n] for k, weight in enumerate(WEIGHTS))


def jumps(model: EnergyModel, atoms: Atoms, direction: np.ndarray) -> list[dict[str, Any]]:
    """For every crossing and spacing the largest jump of energy and forces that fourth differences leave room for."""
    found = []
    steps = np.arange(-HALF, HALF + 1)
    for place in crossings(atoms, direction, model.cutoff):
        samples = sample(model, atoms, direction, np.concatenate([place + h * steps for h in SPACINGS]).tolist())
        for h, values in zip(SPACINGS, np.split(samples, len(SPACINGS)), strict=True):
            rest = np.abs(fourth_differences(values)).max(0) / OF_A_STEP
            found.append({"place": place, "spacing": h, "energy": rest[0], "force": rest[1:].max()})
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The largest over the crossings, for each spacing."""
    return [
        {"spacing": h} | {k: max(float(j[k]) for j in found if j["spacing"] == h) for k in ("energy", "force")}
        for h in SPACINGS
    ]


def measure(model: EnergyModel, symbol: str) -> list[dict[str, Any]]:
    rows = []
    for kind, (atoms, direction) in (("crystal", crystal(symbol)), ("dimer", dimer(symbol, model.cutoff))):
        found = jumps(model, atoms, direction)
        path = np.linspace(0.0, PATH, 201)
        values = sample(model, atoms, direction, path.tolist())
        rows.append(
            {
                "symbol": symbol,
                "kind": kind,
                "n_atoms": len(atoms),
                "crossings": sorted({j["place"] for j in found}),
                "jumps": summary(found),
                "path": path.tolist(),
                "energy_path": values[:, 0].tolist(),
                "force_path": (values[:, 1:4] @ direction).tolist(),
            }
        )
    return rows


def report(rows: list[dict[str, Any]], facts: dict[str, Any], model: str) -> str:
    header = ["moved", "crossings", *(f"{h:.0e} Å" for h in SPACINGS)]

    def table(name: str) -> str:
        return markdown_table(
            header,
            [
                [f"{row['symbol']} {row['kind']}", len(row["crossings"]), *(f"{j[name]:.1e}" for j in row["jumps"])]
                for row in rows
            ],
        )

    return "\n".join(
        [
            "# Smoothness at the cutoff",
            "",
            f"{model}, float64.",
            f"An atom moved by {PATH} Å through a rattled crystal, and away from a single other atom;",
            "how often a distance passes the cutoff on the way, and upper bounds of a jump there: the largest fourth",
            "difference over samples of the given spacing, over that of a unit step. Of a smooth function it falls",
            "with the spacing until rounding is left; a jump would stay.",
            "",
            markdown_machine(facts),
            "",
            "## Jump of the energy of the structure, eV",
            "",
            table("energy"),
            "",
            "## Jump of a force component, eV/Å",
            "",
            table("force"),
        ]
    )


def picture(rows: list[dict[str, Any]], name: str) -> None:
    with drawn(RESULTS / f"{name}.png", (10.5, 3.6), columns=3) as (left, middle, right):
        for index, row in enumerate(row for row in rows if row["kind"] == "crystal"):
            left.plot(row["path"], row["force_path"], color=f"C{index}", label=row["symbol"])
            for place in row["crossings"]:
                left.plot(place, np.interp(place, row["path"], row["force_path"]), "|", color=f"C{index}", ms=9)
        left.set(xlabel="path of the atom, Å", ylabel="force along the path, eV/Å")
        left.set_title("bars: a neighbour passes the cutoff", fontsize=9)
        left.legend(frameon=False, fontsize=8)
        colors = {symbol: f"C{k}" for k, symbol in enumerate(dict.fromkeys(row["symbol"] for row in rows))}
        for axes, quantity, unit, power in ((middle, "energy", "eV", 3), (right, "force", "eV/Å", 2)):
            for row in rows:
                style = "o-" if row["kind"] == "crystal" else "s--"
                sizes = [jump[quantity] for jump in row["jumps"]]
                axes.loglog(SPACINGS, sizes, style, color=colors[row["symbol"]], ms=3, lw=1, mfc="none")
            h = np.array(SPACINGS)
            top = max(row["jumps"][0][quantity] for row in rows)
            axes.loglog(h, top * (h / h[0]) ** power, ":", color="0.5", label=f"$h^{power}$")
            axes.set(xlabel="spacing h, Å", ylabel=f"largest jump of the {quantity}, {unit}")
            axes.legend(frameon=False, fontsize=8)
        right.set_title("solid: crystal; dashed: dimer", fontsize=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument("--name", default="smoothness", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = model_in(options.model, torch.float64)
    rows = []
    for symbol in symbols(model):
        rows += measure(model, symbol)
        for row in rows[-2:]:
            print(symbol, row["kind"], len(row["crossings"]), row["jumps"], flush=True)
    facts = machine()
    data = {"machine": facts, "model": name_of(model), "rows": rows}
    write_results(options.name, data, report(rows, facts, name_of(model)), ("path", "energy_path", "force_path"))
    picture(rows, options.name)


if __name__ == "__main__":
    main()
