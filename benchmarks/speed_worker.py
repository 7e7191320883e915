"""One model, kept alive in its own environment and asked in turn: JSON requests on stdin, JSON answers on stdout.

`speed.py` starts it. It imports nothing of this project, so it runs in environments that know none of it.

    python speed_worker.py MODEL [FILE]              answers requests
    python speed_worker.py MODEL FILE --prepare      writes what has to be compiled before the model can be loaded
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from speed_models import MODELS

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


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def forget_peak() -> None:
    """Lets the kernel's record of the peak start again; where it refuses, the peak since the start is kept."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def numbers_only(diagnostics: Any) -> dict[str, float]:
    """The counters a calculator keeps, from a dictionary or an object; {} where it keeps none."""
    if not isinstance(diagnostics, dict):
        diagnostics = getattr(diagnostics, "__dict__", {})
    return {key: float(value) for key, value in diagnostics.items() if isinstance(value, (int, float))}


class Server:
    """The requests a model answers; each method's name is a request's `op`."""

    def __init__(self, model: str, file: str | None) -> None:
        self.model = MODELS[model]
        self.file = file
        self.calculator: Any = None

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

        atoms = make_system(system)
        atoms.rattle(0.05, seed=seed)
        atoms.calc = self.calculator
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


def serve(server: Server) -> None:
    """Answers until stdin ends; whatever a library prints goes to stderr, so that stdout carries answers alone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop("op"))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    sys.path.pop(0)  # this folder's names are not to hide a library's
    warnings.simplefilter("ignore")
    name, *rest = sys.argv[1:]
    prepare = MODELS[name].prepare
    if rest[1:] == ["--prepare"] and prepare is not None:
        prepare(rest[0])
    else:
        serve(Server(name, rest[0] if rest else None))


if __name__ == "__main__":
    main()
