"""One potential in its own environment: energy and forces of `inference.py`'s systems, and molecular dynamics.

python -m benchmarks.speed.inference_worker MODEL [FILE]           answers requests of `inference.py`
python -m benchmarks.speed.inference_worker MODEL FILE --prepare   compiles the model into FILE
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from benchmarks._worker import forget_peak, peak_mib, resident_mib, serve
from benchmarks.speed.models import MODELS

SYSTEMS = {"Si8": 1, "Si64": 2, "Si512": 4, "Si1728": 6, "Cu864": 6, "cluster27": 3}


def make_system(name: str) -> Any:
    """Diamond-cubic Si (a = 5.43 Å), fcc Cu (a = 3.61 Å), or 27 atoms, Si and Cu in turn, 2.5 Å apart in vacuum."""
    from ase import Atoms
    from ase.build import bulk

    n_cells = SYSTEMS[name]
    if name.startswith("Si"):
        return bulk("Si", "diamond", a=5.43, cubic=True) * n_cells
    if name.startswith("Cu"):
        return bulk("Cu", "fcc", a=3.61, cubic=True) * n_cells
    sites = [(x, y, z) for x in range(n_cells) for y in range(n_cells) for z in range(n_cells)]
    symbols = [("Si", "Cu")[sum(site) % 2] for site in sites]
    atoms = Atoms(symbols, positions=[[2.5 * x for x in site] for site in sites])
    atoms.center(vacuum=8.0)
    return atoms


def numbers_only(diagnostics: Any) -> dict[str, float]:
    """The counters a calculator keeps, from a dictionary or an object; {} where it keeps none."""
    if not isinstance(diagnostics, dict):
        diagnostics = getattr(diagnostics, "__dict__", {})
    return {key: float(value) for key, value in diagnostics.items() if isinstance(value, (int, float))}


class Server:
    """The requests a model answers; each is a request."""

    def __init__(self, model: str, file: str | None) -> None:
        self.model = MODELS[model]
        self.file = file
        self.calculator: Any = None
        self.systems: dict[str, Any] = {}

    def load(self) -> dict[str, Any]:
        from importlib.metadata import PackageNotFoundError, version

        wall, cpu = time.perf_counter(), time.process_time()
        self.calculator = self.model.build(self.file) if self.model.prepare else self.model.build()
        answer: dict[str, Any] = {"load_wall_s": time.perf_counter() - wall, "load_cpu_s": time.process_time() - cpu}
        answer["resident_mib"] = resident_mib()
        if "torch" in sys.modules:
            import torch

            answer |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
        try:
            answer["version"] = version(self.model.distribution)
        except PackageNotFoundError:
            answer["version"] = "not installed, run from the source tree"
        return answer

    def call(self, system: str, seed: int) -> dict[str, Any]:
        """Energy and forces of a system rattled anew (0.05 Å a Cartesian component)."""
        import numpy as np

        if system not in self.systems:
            self.systems = {system: make_system(system)}  # kept, as calorine reads its file again for other atoms
            self.systems[system].calc = self.calculator
        atoms = self.systems[system]
        moved = make_system(system)
        moved.rattle(0.05, seed=seed)
        atoms.positions = moved.positions
        forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        forces = atoms.get_forces()
        energy = atoms.get_potential_energy()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise FloatingPointError(f"{system}: the energy or a force is not finite")
        return {
            "n_atoms": len(atoms),
            "cpu_s": cpu,
            "wall_s": wall,
            "peak_mib": peak_mib(),
            "energy_ev": float(energy),
            "diagnostics": numbers_only(getattr(self.calculator, "diagnostics", None)),
        }

    def md(self, system: str, steps: int) -> dict[str, Any]:
        """Velocity Verlet, 1 fs, 300 K at the start; five steps before the clock starts."""
        import numpy as np
        from ase import units
        from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
        from ase.md.verlet import VelocityVerlet

        atoms = make_system(system)
        atoms.rattle(0.05, seed=1)
        atoms.calc = self.calculator
        MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(1))
        dynamics = VelocityVerlet(atoms, timestep=1.0 * units.fs)
        dynamics.run(5)
        start = atoms.get_total_energy()
        wall, cpu = time.perf_counter(), time.process_time()
        dynamics.run(steps)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        drift = float(atoms.get_total_energy() - start) / len(atoms)
        if not np.isfinite(drift):
            raise FloatingPointError("the total energy of the run is not finite")
        return {
            "n_atoms": len(atoms),
            "steps": steps,
            "cpu_s": cpu,
            "wall_s": wall,
            "energy_change_ev_per_atom": drift,
            "diagnostics": numbers_only(getattr(self.calculator, "diagnostics", None)),
        }


def main() -> None:
    warnings.simplefilter("ignore")
    name, *rest = sys.argv[1:]
    prepare = MODELS[name].prepare
    if rest[1:] == ["--prepare"] and prepare is not None:
        prepare(rest[0])
    else:
        server = Server(name, rest[0] if rest else None)
        serve({"load": server.load, "call": server.call, "md": server.md})


if __name__ == "__main__":
    main()
