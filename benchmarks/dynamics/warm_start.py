"""What do warm starts save in molecular dynamics, and do they heat it?

    python -m benchmarks.dynamics.warm_start --model MODEL --structure FILE [--steps 300] [--fs 1 0.5 0.25]

The same NVE trajectory is begun three times for each time step: from cold starts, with the calculator's rule (warm
where the steps before predict the geometry well), and always warm. FILE's first structure is thermalised at
`--temperature` by Langevin dynamics first. Reported are the applications of the cell and its transpose a step, and the
slope of the difference of the total energy to that of the cold starts: in the difference the oscillation of velocity
Verlet cancels.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.engine import evaluator
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.files import read_file
from benchmarks._common import figure, machine, markdown_machine, markdown_table, write_results

KINDS = ("cold", "the rule", "always warm")
EQUILIBRATION = 300


def calculator(model: EnergyModel, kind: str) -> AndersoNN:
    calc = AndersoNN(model, warm_start=kind != "cold", compile=False, device="cpu")
    if kind == "always warm":
        calc.evaluator.warm_start.predictor.max_error = math.inf  # type: ignore[attr-defined]
    return calc


def thermalised(model: EnergyModel, path: Path, temperature: float) -> Atoms:
    atoms, rng = read_file(path)[0], np.random.default_rng(0)
    atoms.calc = calculator(model, "cold")
    thermalize_momenta(atoms, temperature, rng=rng)
    thermostat: dict[str, Any] = {"temperature_K": temperature, "friction": 0.02 / units.fs, "fixcm": False, "rng": rng}
    Langevin(atoms, 0.5 * units.fs, **thermostat).run(EQUILIBRATION)
    Stationary(atoms)
    return atoms


def trajectory(start: Atoms, model: EnergyModel, kind: str, fs: float, steps: int) -> tuple[np.ndarray, float]:
    """Total energy after each step, eV/atom, and applications a step."""
    atoms = start.copy()
    atoms.calc = calculator(model, kind)
    dynamics, energies, applications = VelocityVerlet(atoms, fs * units.fs), [], 0
    for _ in range(steps):
        dynamics.run(1)
        energies.append(atoms.get_total_energy() / len(atoms))
        applications += sum(atoms.calc.diagnostics["evaluations"].values())
    return np.array(energies), applications / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name or path")
    parser.add_argument("--structure", type=Path, required=True)
    parser.add_argument("--temperature", type=float, default=600.0, help="K")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--fs", type=float, nargs="+", default=[1.0, 0.5, 0.25], help="time steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    evaluator.FUSED_MAX_ATOMS = 0  # structures evaluated in one compiled function always start cold
    model = load_model(options.model)
    assert isinstance(model, EnergyModel)
    start = thermalised(model, options.structure, options.temperature)
    rows = []
    for fs in options.fs:
        found = {kind: trajectory(start, model, kind, fs, options.steps) for kind in KINDS}
        times = fs * 1e-3 * np.arange(options.steps)
        for kind, (energies, applications) in found.items():
            slope = 1e6 * float(np.polyfit(times, energies - found["cold"][0], 1)[0])
            rows.append({"fs": fs, "starts": kind, "applications": applications, "heating": slope})
            print(rows[-1], flush=True)
    facts = machine()
    header = ["time step, fs", "starts", "applications a step", "energy gained beside cold starts, 10⁻⁶ eV/atom/ps"]
    cells = [[row["fs"], row["starts"], figure(row["applications"]), f"{row['heating']:+.1f}"] for row in rows]
    formula = start.get_chemical_formula()
    title = f"{formula}, {options.temperature:.0f} K, {options.steps} steps, default tolerance, float32."
    text = ["# Warm starts in molecular dynamics", title, markdown_machine(facts), markdown_table(header, cells)]
    write_results("warm_start", {"machine": facts, "steps": options.steps, "rows": rows}, "\n\n".join(text))


if __name__ == "__main__":
    main()
