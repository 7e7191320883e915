"""Are distances in molecular dynamics distributed as in the reference trajectory, and do molecules stay intact?

    python -m benchmarks.dynamics.stability --model MODEL --data FRAMES --name acac-300K --temperature 300 --work WORK

Langevin dynamics (friction 0.01 / fs) from the first of the FRAMES, or from `--start`, for `--ps` picoseconds, then
`--nve-ps` without thermostat. FRAMES are of molecular dynamics at the same temperature. Reported are

- whether it stayed together: in a molecule no bond of the first frame (closer than 1.25 times the sum of the covalent
  radii) changed by more than 0.5 Å, and no hydrogen went farther than that from all other atoms (it may change its
  partner, as in a hydrogen bond), all energies finite; of what is periodic the latter alone;
- the distribution of distances `h(r)` of each pair of elements up to 6 Å (half a cell at most), normalised to 1, and
  `∫ |h − h_data| dr`, 0 where they are the same and 2 where they have nothing in common, beside the same between every
  second frame of the data and the others (Fu et al., arXiv 2210.07237);
- the drift of the total energy without thermostat, and the applications of the cell a step.

A run can be ended at any time and goes on where it was saved, once a minute.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN
from ase_andersonn.structures.files import read_file
from benchmarks._common import RESULTS, drawn, figure, machine, markdown_machine, markdown_table, write_results

EVERY = 20
"""Steps between two samples."""
BINS = np.linspace(0.5, 6.0, 276)
BROKEN = 0.5
"""Å by which a bond may change."""
SAVE_SECONDS = 60.0
SAME = ("model", "data", "start", "temperature", "step", "dtype", "seed")
"""Options that a run that goes on may not change."""
Histograms = dict[str, np.ndarray]


def pairs_of(atoms: Atoms) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Indices of the pairs of atoms of each pair of elements."""
    symbols = np.array(atoms.get_chemical_symbols())
    first, second = np.triu_indices(len(atoms), 1)
    found = {}
    for a, b in combinations_with_replacement(sorted(set(symbols)), 2):
        chosen = ((symbols[first] == a) & (symbols[second] == b)) | ((symbols[first] == b) & (symbols[second] == a))
        if chosen.any():
            found[f"{a}-{b}"] = first[chosen], second[chosen]
    return found


def distances(atoms: Atoms) -> np.ndarray:
    return np.asarray(atoms.get_all_distances(mic=bool(atoms.pbc.any())))


def longest(atoms: Atoms) -> float:
    """Up to where distances can be counted, Å: half the shortest cell length of what is periodic."""
    return min(6.0, *(0.5 * atoms.cell.lengths())) if atoms.pbc.any() else 6.0


def add(histograms: Histograms, atoms: Atoms, limit: float) -> None:
    """Count the distances of one structure up to a limit, Å."""
    found = distances(atoms)
    for name, (i, j) in pairs_of(atoms).items():
        counts, _ = np.histogram(found[i, j][found[i, j] <= limit], BINS)
        histograms[name] = histograms.get(name, np.zeros(len(BINS) - 1)) + counts


def normalised(histograms: Histograms) -> Histograms:
    width = BINS[1] - BINS[0]
    return {name: counts / max(counts.sum() * width, 1e-12) for name, counts in histograms.items()}


def difference(first: Histograms, second: Histograms) -> dict[str, float]:
    """`∫ |h − h'| dr` of each pair of elements."""
    one, two = normalised(first), normalised(second)
    return {name: float(np.abs(one[name] - two[name]).sum() * (BINS[1] - BINS[0])) for name in one}


def of_frames(frames: list[Atoms], limit: float) -> Histograms:
    histograms: Histograms = {}
    for atoms in frames:
        add(histograms, atoms, limit)
    return histograms


class Bonds:
    """The bonds of a molecule, and by how much they have changed at most."""

    def __init__(self, atoms: Atoms) -> None:
        found, radii = distances(atoms), covalent_radii[atoms.numbers]
        near = (found < 1.25 * (radii[:, None] + radii)) & ~np.eye(len(atoms), dtype=bool) & (not atoms.pbc.any())
        heavy = atoms.numbers > 1
        self.pairs = np.nonzero(np.triu(near & heavy & heavy[:, None]))
        self.first = found[self.pairs]
        self.hydrogens = np.flatnonzero(~heavy & near.any(1))
        self.nearest = self._nearest(found)

    def _nearest(self, found: np.ndarray) -> np.ndarray:
        return np.partition(found[self.hydrogens], 1, axis=1)[:, 1] if len(self.hydrogens) else np.zeros(0)

    def change(self, atoms: Atoms) -> float:
        """Å."""
        found = distances(atoms)
        changes = np.concatenate([found[self.pairs] - self.first, self._nearest(found) - self.nearest])
        return float(np.abs(changes).max(initial=0.0))


class Trajectory:
    """One run, with what was counted; saved in a folder and gone on with.

    Raises:
        ValueError: where the folder holds a run of another kind.
    """

    def __init__(self, start: Atoms, limit: float, options: argparse.Namespace) -> None:
        self.folder, self.step = Path(options.work) / options.name, options.step * units.fs
        self.options, self.bonds, self.limit = options, Bonds(start), limit
        self.histograms: Histograms = {}
        kind = {name: str(getattr(options, name)) for name in SAME} | {"limit": f"{limit:.6f}", "atoms": len(start)}
        self.state: dict[str, Any] = {"kind": kind, "steps": 0, "largest": 0.0, "broken_ps": None, "nve": []}
        if (self.folder / "state.json").exists():
            self.state = json.loads((self.folder / "state.json").read_text())
            if self.state["kind"] != kind:
                raise ValueError(f"{self.folder} holds another run, {self.state['kind']}; this one is {kind}.")
            self.histograms = dict(np.load(self.folder / "histograms.npz"))
            self.atoms = read(self.folder / "atoms.traj")
        else:
            self.atoms = start.copy()
            rng = np.random.default_rng(options.seed)
            thermalize_momenta(self.atoms, options.temperature, rng=rng)
        self.atoms.calc = AndersoNN(options.model, dtype=options.dtype)

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "atoms.traj", self.atoms)
        np.savez(self.folder / "histograms.npz", **self.histograms)
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def run(self) -> None:
        """With thermostat, then without."""
        options = self.options
        thermal, total = (round(ps * 1000 / options.step) for ps in (options.ps, options.ps + options.nve_ps))
        rng = np.random.default_rng((options.seed, self.state["steps"]))
        langevin = Langevin(
            self.atoms, self.step, temperature_K=options.temperature, friction=0.01 / units.fs, rng=rng, fixcm=False
        )
        self._go(langevin, thermal)
        self._go(VelocityVerlet(self.atoms, self.step), total)

    def _go(self, dynamics: MolecularDynamics, until: int) -> None:
        saved, state = time.monotonic(), self.state
        while state["steps"] < until and state["broken_ps"] is None:
            dynamics.run(EVERY)
            state["steps"] += EVERY
            add(self.histograms, self.atoms, self.limit)
            ps = state["steps"] * self.options.step / 1000
            if isinstance(dynamics, VelocityVerlet):
                state["nve"].append([ps, self.atoms.get_total_energy()])
            state["largest"] = max(state["largest"], self.bonds.change(self.atoms))
            if not np.isfinite(self.atoms.get_total_energy()) or state["largest"] > BROKEN:
                state["broken_ps"] = ps
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def drift(self) -> float | None:
        """Slope of the total energy without thermostat, eV/atom/ps."""
        if len(self.state["nve"]) < 3:
            return None
        t, energy = np.array(self.state["nve"]).T
        return float(np.polyfit(t, energy, 1)[0] / len(self.atoms))


def picture(own: Histograms, data: Histograms, path: Path) -> None:
    names = list(data)
    with drawn(path, (3 * len(names), 2.8), columns=len(names)) as axes:
        centers = 0.5 * (BINS[1:] + BINS[:-1])
        one, two = normalised(own), normalised(data)
        for axis, name in zip(np.atleast_1d(axes), names, strict=True):
            axis.plot(centers, two[name], "k", lw=2.0, alpha=0.4, label="data")
            axis.plot(centers, one[name], "C0", lw=0.9, label="model")
            axis.set(title=name, xlabel="r, Å")
        np.atleast_1d(axes)[0].legend()


def report(data: dict[str, Any]) -> str:
    header = ["run", "atoms", "step, fs", "ps", "stayed together", "largest change of a bond, Å"]
    header += ["difference of h(r), worst pair of elements"]
    header += ["the same within the data", "drift without thermostat, µeV/atom/ps", "evaluations a step"]
    rows = [
        [
            name,
            str(own["atoms"]),
            figure(own["step"]),
            figure(own["ps"]),
            "yes" if own["broken_ps"] is None else f"broke after {own['broken_ps']:.2f} ps",
            "–" if own["largest"] == 0.0 else figure(own["largest"]),
            figure(max(own["difference"].values())),
            figure(max(own["halves"].values())),
            figure(None if own["drift"] is None else 1e6 * own["drift"]),
            " + ".join(str(n) for n in own["evaluations"]),
        ]
        for name, own in data["runs"].items()
    ]
    lines = ["# Stability of molecular dynamics", "", markdown_machine(data["machine"]), ""]
    return "\n".join([*lines, markdown_table(header, rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name or path")
    parser.add_argument("--data", type=Path, required=True, help="frames of molecular dynamics at this temperature")
    parser.add_argument("--name", required=True, help="of the run")
    parser.add_argument("--temperature", type=float, required=True, help="K")
    parser.add_argument("--work", type=Path, required=True, help="folder in which runs are kept")
    parser.add_argument("--start", type=Path, help="structure to begin with, instead of the first frame")
    parser.add_argument("--step", type=float, default=0.5, help="fs (0.5)")
    parser.add_argument("--ps", type=float, default=100.0)
    parser.add_argument("--nve-ps", type=float, default=10.0)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    frames = read_file(options.data)
    start = frames[0] if options.start is None else read_file(options.start)[0]
    limit = min(longest(start), *(longest(atoms) for atoms in frames))
    reference = of_frames(frames, limit)
    if pairs_of(start).keys() != reference.keys():
        parser.error(f"the start has pairs of {', '.join(pairs_of(start))}, the data of {', '.join(reference)}")
    trajectory = Trajectory(start, limit, options)
    trajectory.run()
    path = RESULTS / "stability.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    data["machine"] = machine()
    data["runs"][options.name] = {
        "model": Path(options.model).name,
        "temperature": options.temperature,
        "step": options.step,
        "atoms": len(start),
        "ps": trajectory.state["steps"] * options.step / 1000,
        "broken_ps": trajectory.state["broken_ps"],
        "largest": trajectory.state["largest"],
        "difference": difference(trajectory.histograms, reference),
        "halves": difference(of_frames(frames[::2], limit), of_frames(frames[1::2], limit)),
        "drift": trajectory.drift(),
        "evaluations": list(trajectory.atoms.calc.diagnostics["evaluations"].values()),
    }
    picture(trajectory.histograms, reference, RESULTS / f"stability-{options.name}.png")
    write_results("stability", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
