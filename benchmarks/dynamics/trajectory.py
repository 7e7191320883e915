"""A Lennard-Jones liquid and the thermal expansion of copper, by molecular dynamics, beside published values.

    python -m benchmarks.dynamics.trajectory [--part copper] [--scale 10]

- Energy, pressure and heat capacity at T* = 0.85, ρ* = 0.82: NIST's reference calculations (Monte Carlo with long-range
  corrections, https://mmlapps.nist.gov/srs/LJ_PURE/mc.htm); heat capacity: their energies at T* = 0.85 and 0.90.
- g(r) and diffusion of argon at 94.4 K, 1.374 g/cm³: A. Rahman, Phys. Rev. 136, A405 (1964), 864 atoms. D of a cell of
  length L is smaller by 2.837 kT / (6 π η L), Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004), taken with the
  viscosity of argon, 0.26 mPa s, from Rahman's cell to this one.
- Copper (EMT), 256 atoms, free of pressure: volumes by the barostat and by the quasi-harmonic approximation of
  classical nuclei, whose error grows with the square of the temperature.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from ase_andersonn.mc import estimate
from ase_andersonn.workflows.md import molecular_dynamics
from ase_andersonn.workflows.quasi_harmonic import quasi_harmonic
from ase_andersonn.workflows.trajectory import diffusion, heat_capacity, mean_values, radial_distribution
from benchmarks._common import RESULTS, machine, markdown_machine, markdown_table, write_results

SIGMA, EPSILON = 3.4, 120.0 * units.kB
FS = 10.0
VISCOSITY = 0.26e-3 * units.Pascal * units.s


class Argon(Calculator):
    """All pairs of nearest images within three σ."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        structure = self.atoms
        assert structure is not None
        n, length = len(structure), structure.cell[0, 0]
        i, j = np.triu_indices(n, 1)
        d = structure.positions[i] - structure.positions[j]
        d -= length * np.round(d / length)
        r2 = np.einsum("ij,ij->i", d, d)
        near = np.flatnonzero(r2 < (3 * SIGMA) ** 2)
        i, j, d, s6 = i[near], j[near], d[near], (SIGMA**2 / r2[near]) ** 3
        pull = (24 * EPSILON * (2 * s6**2 - s6) / r2[near])[:, None] * d
        forces = np.stack([np.bincount(i, f, n) - np.bincount(j, f, n) for f in pull.T], axis=1)
        virial = -np.einsum("ij,ik->jk", d, pull) / structure.get_volume()
        self.results = {"energy": float(4 * EPSILON * (s6**2 - s6).sum()), "forces": forces}
        self.results["stress"] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def liquid(density: float, temperature: float, steps: int, ensemble: Any, work: Path) -> Path:
    """The trajectory of 256 atoms at a reduced density, from a melted crystal on."""
    crystal = bulk("Ar", cubic=True, a=(4 / density) ** (1 / 3) * SIGMA) * (4, 4, 4)
    options = {"timestep": FS, "seed": 1, "friction": 1e-3, "thermostat_time": 500.0}
    hot = molecular_dynamics(crystal, Argon(), ensemble="langevin", temperature=5 * temperature, steps=1000, **options)
    melt = Atoms(hot.atoms.numbers, hot.atoms.positions, cell=hot.atoms.cell, pbc=True)
    cool = molecular_dynamics(melt, Argon(), ensemble="langevin", temperature=temperature, steps=1500, **options)
    path = work / f"{ensemble}.traj"
    start = cool.atoms
    start.set_momenta(start.get_momenta() - start.get_momenta().mean(0))
    molecular_dynamics(
        start, Argon(), ensemble=ensemble, temperature=temperature, steps=steps, trajectory=path, **options
    )
    return path


def reference_state(steps: int, work: Path) -> list[tuple[str, str, str]]:
    """Energy, pressure and heat capacity beside NIST's."""
    density, temperature = 0.82, 0.85 * EPSILON / units.kB
    path = liquid(density, temperature, steps, "bussi", work)
    found, c = mean_values(path), heat_capacity(path, temperature=temperature).per_atom
    energy = 8 / 3 * math.pi * density * (3.0**-9 / 3 - 3.0**-3)
    pressure = 32 / 9 * math.pi * density**2 * 3.0**-9 - 16 / 3 * math.pi * density**2 * 3.0**-3
    assert found.pressure is not None
    scale = units.GPa * SIGMA**3 / EPSILON
    rows = [("U*/N", found.energy.mean / EPSILON / 256 + energy, found.energy.error / EPSILON / 256, "−5.7947")]
    rows += [("p*", found.pressure.mean * scale + pressure, found.pressure.error * scale, "0.5536")]
    rows += [("C_V / N k", c.mean, c.error, f"{1.5 + (5.7947 - 5.7456) / 0.05:.2f}")]
    return [(name, f"{value:.4f} ± {error:.4f}", known) for name, value, error, known in rows]


def argon(steps: int, work: Path) -> list[tuple[str, str, str]]:
    """Argon's structure and diffusion beside Rahman's."""
    density = 1.374e-24 * units.mol / 39.948 * SIGMA**3
    path = liquid(density, 94.4, steps, "bussi", work)
    g, d = radial_distribution(path, r_max=11.4, bins=228), diffusion(path, lag=3000.0)
    peaks = [g.r[(g.r > low) & (g.r < high)][g.g[(g.r > low) & (g.r < high)].argmax()] for low, high in SHELLS]
    cell = [(n / density) ** (1 / 3) * SIGMA for n in (256, 864)]
    size = 2.837 * units.kB * 94.4 / (6 * math.pi * VISCOSITY) * (1 / cell[0] - 1 / cell[1])
    smaller = size * units.fs * 0.1  # Å²/fs, and cm²/s of that
    rows = [("maxima of g(r), Å", ", ".join(f"{r:.1f}" for r in peaks), "3.7, 7.0, 10.4")]
    value = f"{d.coefficient.mean * 1e5:.3f} ± {d.coefficient.error * 1e5:.3f}"
    return [*rows, ("D, 10⁻⁵ cm²/s", value, f"2.43, of 256 atoms {2.43 - smaller * 1e5:.2f}")]


SHELLS = ((3.0, 4.5), (6.0, 8.0), (9.5, 11.3))


def copper(steps: int, _: Path) -> list[tuple[str, str, str]]:
    """Volumes by the barostat and by the quasi-harmonic approximation, Å³/atom."""
    warm = quasi_harmonic(bulk("Cu", cubic=True), EMT(), supercell=[3, 3, 3], max_temperature=900.0, classical=True)
    rows = []
    for k, temperature in enumerate((200.0, 300.0, 400.0, 800.0)):
        there = float(np.interp(temperature, warm.temperatures, warm.volumes)) / 4
        start = bulk("Cu", cubic=True, a=(4 * there) ** (1 / 3)) * (4, 4, 4)
        run = molecular_dynamics(
            start, EMT(), ensemble="npt", temperature=temperature, timestep=5.0, steps=steps, seed=k, every=1
        )
        found = estimate(run.volumes[steps // 10 :] / 256)
        rows.append((f"copper {temperature:.0f} K, Å³", f"{found.mean:.4f} ± {found.error:.4f}", f"{there:.4f}"))
    return rows


PARTS = {"reference": (reference_state, 6000), "argon": (argon, 6000), "copper": (copper, 4000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one of three; what the others gave before stays")
    parser.add_argument("--scale", type=float, default=1.0, help="length of all runs")
    options = parser.parse_args()
    known = RESULTS / "trajectory.json"
    parts = json.loads(known.read_text())["parts"] if options.part and known.exists() else {}
    for part in [options.part] if options.part else PARTS:
        compute, steps = PARTS[part]
        with tempfile.TemporaryDirectory() as work:
            parts[part] = {"scale": options.scale, "rows": compute(round(steps * options.scale), Path(work))}
    table = markdown_table(("quantity", "here", "reference"), [row for part in parts.values() for row in part["rows"]])
    text = (__doc__ or "").split("\n\n", 2)[2]
    print(table)
    markdown = f"# Trajectories\n\n{text}\n{table}\n\n{markdown_machine(machine())}"
    write_results("trajectory", {"machine": machine(), "parts": parts}, markdown)


if __name__ == "__main__":
    main()
