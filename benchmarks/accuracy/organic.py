"""An organic potential beside GFN2-xTB, on molecules that it has not seen.

    python -m benchmarks.accuracy.organic --model organic --work WORK [--test FRAMES ...]         # all parts
    python -m benchmarks.accuracy.organic --model organic --work WORK --part torsions bonds
    python -m benchmarks.accuracy.organic --model organic --work WORK --part md --ps 100

- errors: of the labelled frames of `--test`, whole and by their `kind`;
- small: the small molecules of the recipe, which are among those of training, at rest in GFN2-xTB;
- torsions: every rotatable bond of ten molecules turned in steps of 15°, the rest rigid as GFN2-xTB left it; energies
  above the curve's lowest, of points within 2 eV of it;
- bonds: every bond between two heavy atoms outside rings drawn from 0.85 to 2 times its length, what hangs on it moved
  along; energies above that of the relaxed molecule;
- md: Langevin dynamics at 300 K (step 0.5 fs, friction 0.01 / fs) of all ten at once, 40 Å apart, for `--ps`
  picoseconds: whether no bond changed by more than 0.5 Å, and the errors of forces and energies of frames on the way.
  It can be ended at any time and goes on where WORK has it, saved once a minute.

Needs RDKit and tblite. The packaged model was trained on none of the ten molecules.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.training import evaluate_dataset
from ase_andersonn.training.data.labels import read_frames
from benchmarks._common import (
    REPOSITORY,
    RESULTS,
    drawn,
    figure,
    machine,
    markdown_machine,
    markdown_table,
    script,
    write_results,
)
from benchmarks.dynamics.nve import fingerprint
from benchmarks.dynamics.stability import BROKEN, SAVE_SECONDS, Bonds

MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "alanine dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "nicotine": "CN1CCC[C@H]1c1cccnc1",
    "sulfanilamide": "Nc1ccc(cc1)S(N)(=O)=O",
    "methionine": "CSCC[C@H](N)C(=O)O",
    "dimethyl methylphosphonate": "CP(=O)(OC)OC",
    "bromophenylethanol": "OCCc1ccc(Br)cc1",
    "enflurane": "FC(F)OC(F)(F)C(F)Cl",
}
ANGLES = np.arange(0.0, 360.0, 15.0)
FACTORS = np.linspace(0.85, 2.0, 24)
WITHIN = 2.0
"""eV above a torsion's lowest point up to which its points count."""
APART = 40.0
"""Å between the molecules in dynamics."""
TEMPERATURE, STEP = 300.0, 0.5 * units.fs
"""K; ASE's unit of time."""
EVERY = 200
"""Steps between two looks at the bonds."""
WORST = 15
"""Of the small molecules are named."""
SAMPLE_PS = 1.0
"""Between two frames that are labelled."""
PARTS = ("errors", "small", "torsions", "bonds", "md")
RECIPE = REPOSITORY / "data" / "recipes" / "organic"
SMALL = ("small.smi", "common.smi")
"""Files of the recipe, molecules of few atoms."""
MAKE = script("data/organic/make.py")
"""Draws the geometries of training."""
EMBEDDED = MAKE.dipoles().embedded
KCAL = units.kcal / units.mol


def at_rest(smiles: str) -> Chem.Mol:
    """The molecule in a conformer of RDKit, at rest in GFN2-xTB."""
    return MAKE.relaxed(EMBEDDED(smiles, 0), fmax=0.01)


def torsions(molecule: Chem.Mol) -> Iterator[tuple[str, list[Atoms]]]:
    """The molecule with each rotatable bond turned, by the bond's name."""
    for first, second in molecule.GetSubstructMatches(MAKE.ROTATABLE):
        quadruple = (neighbor(molecule, first, second), first, second, neighbor(molecule, second, first))
        turned = Chem.Mol(molecule)
        start = rdMolTransforms.GetDihedralDeg(turned.GetConformer(), *quadruple)
        frames = []
        for angle in ANGLES:
            rdMolTransforms.SetDihedralDeg(turned.GetConformer(), *quadruple, float(start + angle))
            frames.append(MAKE.as_atoms(turned))
        yield name_of(molecule, first, second), frames


def stretches(molecule: Chem.Mol) -> Iterator[tuple[str, list[Atoms]]]:
    """The molecule with each bond of two heavy atoms outside rings drawn out, by the bond's name; first at rest."""
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if bond.IsInRing() or 1 in (bond.GetBeginAtom().GetAtomicNum(), bond.GetEndAtom().GetAtomicNum()):
            continue
        drawn, frames = Chem.Mol(molecule), [MAKE.as_atoms(molecule)]
        length = rdMolTransforms.GetBondLength(drawn.GetConformer(), *ends)
        for factor in FACTORS:
            rdMolTransforms.SetBondLength(drawn.GetConformer(), *ends, float(factor * length))
            frames.append(MAKE.as_atoms(drawn))
        yield name_of(molecule, *ends), frames


def neighbor(molecule: Chem.Mol, here: int, there: int) -> int:
    return int(next(n.GetIdx() for n in molecule.GetAtomWithIdx(here).GetNeighbors() if n.GetIdx() != there))


def name_of(molecule: Chem.Mol, first: int, second: int) -> str:
    return "–".join(f"{molecule.GetAtomWithIdx(k).GetSymbol()}{k}" for k in (first, second))


def energies(frames: Sequence[Atoms], calc: AndersoNN) -> tuple[np.ndarray, np.ndarray]:
    """Of GFN2-xTB, not a number where it finds none, and of the model, eV."""
    reference = []
    for atoms in frames:
        labelled = atoms.copy()
        labelled.calc = MAKE.engine()
        try:
            reference.append(labelled.get_potential_energy())
        except CalculationFailed:
            reference.append(np.nan)
    ours = [result["energy"] for result in calc.evaluate(list(frames), forces=False)]
    return np.array(reference), np.array(ours)


def torsion_curve(frames: Sequence[Atoms], calc: AndersoNN) -> dict[str, list[float]]:
    reference, ours = energies(frames, calc)
    lowest = int(np.nanargmin(reference))
    return curve(ANGLES, reference - reference[lowest], ours - ours[lowest], reference - reference[lowest] <= WITHIN)


def bond_curve(frames: Sequence[Atoms], calc: AndersoNN) -> dict[str, list[float]]:
    reference, ours = energies(frames, calc)
    reference, ours = reference[1:] - reference[0], ours[1:] - ours[0]
    return curve(FACTORS, reference, ours, np.isfinite(reference))


def curve(x: np.ndarray, reference: np.ndarray, ours: np.ndarray, chosen: np.ndarray) -> dict[str, list[float]]:
    names = ("x", "xtb", "model")
    return {name: v[chosen].tolist() for name, v in zip(names, (x, reference, ours), strict=True)}


Scan = Callable[[Chem.Mol], Iterator[tuple[str, list[Atoms]]]]
Curve = Callable[[Sequence[Atoms], AndersoNN], dict[str, list[float]]]
SCANS: dict[str, tuple[Scan, Curve]] = {"torsions": (torsions, torsion_curve), "bonds": (stretches, bond_curve)}


def scanned(part: str, molecules: dict[str, Chem.Mol], calc: AndersoNN) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Curves by molecule and bond."""
    scan, curve_of = SCANS[part]
    return {name: {bond: curve_of(frames, calc) for bond, frames in scan(m)} for name, m in molecules.items()}


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
    """Error of the energy, eV, and the largest component of the forces, eV/Å, of molecules at rest in GFN2-xTB."""
    frames: dict[str, Atoms] = {}
    for name in names:
        try:
            frames[name] = MAKE.as_atoms(at_rest(name))
        except ValueError as error:
            print(f"{name} left out: {error}")
    found = {}
    for (name, atoms), ours in zip(frames.items(), calc.evaluate(list(frames.values())), strict=True):
        atoms.calc = MAKE.engine()
        error = float(ours["energy"] - atoms.get_potential_energy())
        found[name] = {"energy": error, "forces": float(np.abs(ours["forces"]).max())}
    return found


class Dynamics:
    """All molecules in one run, apart from one another; saved in a folder and gone on with."""

    def __init__(self, molecules: dict[str, Chem.Mol], model: EnergyModel, folder: Path) -> None:
        self.folder, self.names = folder, list(molecules)
        parts = [MAKE.as_atoms(molecule) for molecule in molecules.values()]
        self.slices = [slice(*ends) for ends in pairwise(np.cumsum([0, *map(len, parts)]))]
        self.bonds = [Bonds(part) for part in parts]
        none = [None] * len(parts)
        self.state: dict[str, Any] = {"steps": 0, "largest": [0.0] * len(parts), "broken_ps": none, "samples": []}
        if (folder / "state.json").exists():
            self.state = json.loads((folder / "state.json").read_text())
            self.atoms: Any = read(folder / "atoms.traj")
        else:
            self.atoms = Atoms()
            for k, part in enumerate(parts):
                part.translate([APART * k, 0.0, 0.0])
                self.atoms += part
            thermalize_momenta(self.atoms, TEMPERATURE, rng=np.random.default_rng(0))
        self.atoms.calc = AndersoNN(model)

    @property
    def ps(self) -> float:
        return float(self.state["steps"] * STEP / (1000 * units.fs))

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "atoms.traj", self.atoms)
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def run(self, ps: float) -> None:
        """Until that time, or until all have broken a bond or the energy is not a number."""
        rng, saved = np.random.default_rng((0, self.state["steps"])), time.monotonic()
        kwargs: dict[str, Any] = {"temperature_K": TEMPERATURE, "friction": 0.01 / units.fs, "fixcm": False, "rng": rng}
        dynamics = Langevin(self.atoms, STEP, **kwargs)
        while self.ps < ps and None in self.state["broken_ps"]:
            dynamics.run(EVERY)
            self.state["steps"] += EVERY
            self._look()
            if not np.isfinite(self.atoms.get_potential_energy()):
                break
            if self.ps >= (len(self.state["samples"]) + 1) * SAMPLE_PS:
                self.state["samples"].append(self._sample())
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def _look(self) -> None:
        for k, (bonds, part) in enumerate(zip(self.bonds, self.slices, strict=True)):
            largest = float(np.fmax(self.state["largest"][k], bonds.change(self.atoms[part])))
            self.state["largest"][k] = largest
            if self.state["broken_ps"][k] is None and largest > BROKEN:
                self.state["broken_ps"][k] = self.ps

    def _sample(self) -> list[list[float]]:
        """Of each molecule the mean error of the force components, and the energy of GFN2-xTB and of the model, eV."""
        forces, own = self.atoms.get_forces(), self.atoms.get_potential_energies()
        found = []
        for part in self.slices:
            labelled = self.atoms[part]
            labelled.calc = MAKE.engine()
            error = float(np.abs(labelled.get_forces() - forces[part]).mean())
            found.append([error, float(labelled.get_potential_energy()), float(own[part].sum())])
        return found

    def summary(self) -> dict[str, Any]:
        """By molecule: the largest change of a bond, when it was too large, and the errors of the samples (MAE): of
        the forces, eV/Å, and of the energy about its mean, eV; None without samples."""
        samples = np.array(self.state["samples"]).reshape(-1, len(self.names), 3)
        found = {}
        for k, name in enumerate(self.names):
            forces, reference, ours = samples[:, k].T
            error = np.abs((ours - reference) - (ours - reference).mean()) if len(samples) else None
            found[name] = {
                "largest": self.state["largest"][k],
                "broken_ps": self.state["broken_ps"][k],
                "forces": None if error is None else float(forces.mean()),
                "energy": None if error is None else float(error.mean()),
            }
        return {"ps": self.ps, "samples": len(samples), "molecules": found}


def errors_of(curves: dict[str, dict[str, dict[str, list[float]]]]) -> dict[str, dict[str, float]]:
    """By molecule and of all the number of bonds and of points, and the mean and the largest error, eV."""
    errors = {name: [np.subtract(c["model"], c["xtb"]) for c in own.values()] for name, own in curves.items()}
    errors["all"] = [one for own in errors.values() for one in own]
    found = {}
    for name, own in errors.items():
        if own:
            size = np.abs(np.concatenate(own))
            numbers = {"bonds": len(own), "points": len(size)}
            found[name] = {**numbers, "mean": float(size.mean()), "largest": float(size.max())}
    return found


def scan_table(found: dict[str, dict[str, float]]) -> str:
    rows = [
        [name, own["bonds"], figure(1e3 * own["mean"]), figure(own["mean"] / KCAL), figure(1e3 * own["largest"])]
        for name, own in found.items()
    ]
    return markdown_table(["molecule", "bonds", "MAE, meV", "MAE, kcal/mol", "largest error, meV"], rows)


def picture(curves: dict[str, dict[str, dict[str, list[float]]]], label: str, path: Path) -> None:
    """The first three curves of every molecule."""
    with drawn(path, (15, 5.4), rows=2, columns=5) as axes:
        for axis, (name, own) in zip(axes.flat, curves.items(), strict=True):
            for color, data in zip(("C0", "C1", "C2"), own.values(), strict=False):
                axis.plot(data["x"], data["xtb"], f"{color}o", ms=3)
                axis.plot(data["x"], data["model"], color)
            axis.set(title=name, xlabel=label, ylabel="eV")
        axes[0, 0].figure.suptitle("points: GFN2-xTB, lines: model")


def report(data: dict[str, Any]) -> str:
    parts = ["# The organic potential beside GFN2-xTB", f"{data['model']}. {markdown_machine(data['machine'])}"]
    if "errors" in data:
        rows = [[k, own["frames"], figure(own["energy"]), figure(own["forces"])] for k, own in data["errors"].items()]
        parts += ["## Errors of the test frames (MAE)"]
        parts += [markdown_table(["frames", "number", "energy, meV/atom", "forces, meV/Å"], rows)]
    if "small" in data:
        errors = {name: abs(own["energy"]) for name, own in data["small"].items()}
        worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
        rows = [[f"`{k}`", *(figure(1e3 * data["small"][k][what]) for what in ("energy", "forces"))] for k in worst]
        parts += [f"## {len(errors)} small molecules at rest, in training in other geometries"]
        parts += [f"Energies are off by {figure(1e3 * float(np.median(list(errors.values()))))} meV in the median."]
        parts += [markdown_table(["the worst", "energy, error, meV", "forces, largest component, meV/Å"], rows)]
    for name, title in (("torsions", "Torsions"), ("bonds", "Bonds drawn out")):
        if name in data:
            parts += [f"## {title}"]
            parts += [f"![{title}](organic-{name}.png)"] if name == "torsions" else []
            parts += [scan_table(data[name])]
    if "md" in data:
        md = data["md"]
        rows = [
            [
                name,
                "yes" if own["broken_ps"] is None else f"until {own['broken_ps']:.1f} ps",
                figure(own["largest"]),
                *(figure(None if own[error] is None else 1e3 * own[error]) for error in ("forces", "energy")),
            ]
            for name, own in md["molecules"].items()
        ]
        header = ["molecule", "kept its bonds", "largest change of a bond, Å", "forces, MAE, meV/Å"]
        header += ["energy about its mean, MAE, meV"]
        parts += [f"## Molecular dynamics at 300 K, {md['ps']:.1f} ps, {md['samples']} frames labelled"]
        parts += [markdown_table(header, rows)]
    return "\n\n".join(parts)


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
    molecules = {name: at_rest(smiles) for name, smiles in MOLECULES.items()} if chosen else {}
    calc = AndersoNN(model, dtype="float64", compile=False)
    if "small" in parts:
        names = [name for file in SMALL for name in (RECIPE / file).read_text(encoding="utf-8").split()]
        data["small"] = small_ones(names, calc)
    options.work.mkdir(parents=True, exist_ok=True)
    for part in sorted(chosen & set(SCANS)):
        curves = scanned(part, molecules, calc)
        data[part] = errors_of(curves)
        (options.work / f"{part}.json").write_text(json.dumps(curves))
        label = "angle, degrees" if part == "torsions" else "length / length at rest"
        picture(curves, label, RESULTS / f"organic-{part}.png")
    if "md" in chosen:
        dynamics = Dynamics(molecules, model, options.work / weights)
        dynamics.run(options.ps)
        data["md"] = dynamics.summary()
    write_results("organic", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
