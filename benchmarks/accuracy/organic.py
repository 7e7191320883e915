"""An organic potential beside GFN2-xTB, on molecules outside its training set.

    python -m benchmarks.accuracy.organic --model organic --work WORK [--test FRAMES ...]         # all parts
    python -m benchmarks.accuracy.organic --model organic --work WORK --part torsions bonds
    python -m benchmarks.accuracy.organic --model organic --work WORK --part md --ps 100

- errors: of all labelled frames of `--test`, and by their `kind`;
- small: the small molecules of the recipe (in the training set in other geometries), relaxed with GFN2-xTB;
- torsions: every rotatable bond of ten molecules turned in steps of 15°, the rest rigid as GFN2-xTB left it; energies
  above the curve's lowest, of points within 2 eV of it;
- bonds: every bond between two heavy atoms outside rings stretched from 0.85 to 2 times its length, rigidly;
  energies above that of the relaxed molecule;
- md: Langevin dynamics at 300 K (step 0.5 fs, friction 0.01 / fs) of all ten at once, 40 Å apart, for `--ps`
  picoseconds: whether no bond changed by more than 0.5 Å, and the errors of forces and energies of frames on the way.
  It can be ended at any time and goes on where WORK has it, saved once a minute.

Needs RDKit and tblite. The packaged model was trained on none of the ten molecules.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.training import evaluate_dataset
from ase_andersonn.training.data.labels import read_frames
from benchmarks._common import RESULTS, machine, write_results
from benchmarks.accuracy.organic_dynamics import Dynamics
from benchmarks.accuracy.organic_molecules import MAKE, MOLECULES, RECIPE, relaxed_molecule
from benchmarks.accuracy.organic_report import picture, report
from benchmarks.accuracy.organic_scans import SCANS, errors_of, scanned
from benchmarks.dynamics.nve import fingerprint

PARTS = ("errors", "small", "torsions", "bonds", "md")
SMALL = ("small.smi", "common.smi")
"""Files of the recipe, molecules of few atoms."""


def of_frames(model: EnergyModel, patterns: Sequence[str]) -> dict[str, dict[str, float]]:
    """MAE of energy, meV/atom, and forces, meV/Å, of all frames and of each `kind`."""
    frames = read_frames(patterns)
    kinds: dict[str, list[Atoms]] = {"all": frames}
    for atoms in frames:
        kinds.setdefault(atoms.info.get("kind", "rest"), []).append(atoms)
    found = {}
    for kind, chosen in kinds.items():
        row = evaluate_dataset(model, chosen).errors["all"]
        found[kind] = {"frames": len(chosen), "energy": 1e3 * row.energy.mae, "forces": 1e3 * row.forces.mae}
    return found


def small_ones(names: Sequence[str], calc: AndersoNN) -> dict[str, dict[str, float]]:
    """Error of the energy, eV, and the largest component of the forces, eV/Å, of molecules relaxed with GFN2-xTB."""
    frames: dict[str, Atoms] = {}
    for name in names:
        try:
            frames[name] = MAKE.as_atoms(relaxed_molecule(name))
        except ValueError as error:
            print(f"{name} left out: {error}")
    found = {}
    for (name, atoms), ours in zip(frames.items(), calc.evaluate(list(frames.values())), strict=True):
        atoms.calc = MAKE.engine()
        error = float(ours["energy"] - atoms.get_potential_energy())
        found[name] = {"energy": error, "forces": float(np.abs(ours["forces"]).max())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organic", help="name or path")
    parser.add_argument("--work", type=Path, required=True, help="folder in which the dynamics is kept")
    parser.add_argument("--test", nargs="*", default=[], help="labelled frames, files or patterns, for the errors")
    parser.add_argument("--part", nargs="+", choices=PARTS, help="all where not given, errors only with --test")
    parser.add_argument("--ps", type=float, default=100.0)
    options = parser.parse_args()
    parts = set(options.part or (PARTS if options.test else PARTS[1:]))
    if "errors" in parts and not options.test:
        parser.error("--part errors needs --test")
    model = load_model(options.model)
    assert isinstance(model, EnergyModel)
    weights, path = fingerprint(model), RESULTS / "organic.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if data.get("weights") != weights:
        data = {"model": Path(options.model).name, "weights": weights}
    data["machine"] = machine()
    if "errors" in parts:
        data["errors"] = of_frames(model, options.test)
    chosen = parts - {"errors", "small"}
    molecules = {name: relaxed_molecule(smiles) for name, smiles in MOLECULES.items()} if chosen else {}
    calc = AndersoNN(model, dtype="float64", compile=False)
    if "small" in parts:
        names = [name for file in SMALL for name in (RECIPE / file).read_text(encoding="utf-8").split()]
        data["small"] = small_ones(names, calc)
    options.work.mkdir(parents=True, exist_ok=True)
    for part in sorted(chosen & set(SCANS)):
        curves = scanned(part, molecules, calc)
        data[part] = errors_of(curves)
        (options.work / f"{part}.json").write_text(json.dumps(curves))
        label = "angle, degrees" if part == "torsions" else "length / relaxed length"
        picture(curves, label, RESULTS / f"organic-{part}.png")
    if "md" in chosen:
        dynamics = Dynamics(molecules, model, options.work / weights)
        dynamics.run(options.ps)
        data["md"] = dynamics.summary()
    write_results("organic", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
