"""The universal potential beside its teacher's labels and beside density-functional theory.

    python -m benchmarks.accuracy.universal MODEL --frames frames/test.extxyz [--part errors solids elements cost]

- errors: mean absolute errors on the test frames (formulas that no training frame has), by kind of structure; energies
  in meV/atom, forces in meV/Å, nearly relaxed where the mean label is below 0.15 eV/Å;
- solids: lattice constants and bulk moduli of ten solids beside PBE, never beside the teacher;
- elements: fcc, bcc, hcp and diamond elements (without noble gases) from 0.7 to 1.5 times the volume measured: whether
  there is one minimum, and its volume beside the measured one of `ase.data.reference_states`;
- cost: energy and forces of Si 512, NaCl 512, Cu 864 and a 60-atom oxide, one thread, µs/atom of CPU time.

References: Haas, Tran and Blaha, Phys. Rev. B 79, 085104 (2009), PBE: lattice constants (Å) and bulk moduli (GPa).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.data import chemical_symbols, reference_states
from ase.eos import EquationOfState
from ase.io import read

from ase_andersonn import AndersoNN
from benchmarks._common import figure, interleaved, machine, markdown_machine, markdown_table, write_results

SOLIDS = {
    "Al": ("fcc", 4.041, 78.0),
    "Cu": ("fcc", 3.632, 138.0),
    "Au": ("fcc", 4.154, 138.0),
    "Fe": ("bcc", 2.833, 196.0),
    "W": ("bcc", 3.185, 302.0),
    "Si": ("diamond", 5.472, 88.0),
    "C": ("diamond", 3.575, 431.0),
    "NaCl": ("rocksalt", 5.702, 23.5),
    "MgO": ("rocksalt", 4.261, 149.0),
    "GaAs": ("zincblende", 5.750, 61.0),
}
LATTICES = ("fcc", "bcc", "hcp", "diamond")
NOBLE = ("He", "Ne", "Ar", "Kr", "Xe")
PARTS = ("errors", "solids", "elements", "cost")
RELAXED_FORCE = 0.15
"""Mean size of a structure's labelled force components below which it counts as nearly relaxed, eV/Å."""
STRAINS = np.linspace(-0.03, 0.03, 7)


def errors(calc: AndersoNN, frames: Sequence[Atoms]) -> dict[str, dict[str, float]]:
    """Mean absolute errors of all frames, of those nearly relaxed, and by kind."""
    found = calc.evaluate(frames, forces=True)
    rows = []
    for atoms, result in zip(frames, found, strict=True):
        forces = atoms.get_forces()
        energy = abs(result["energy"] - atoms.get_potential_energy()) / len(atoms)
        wrong = np.abs(result["forces"] - forces).mean()
        rows.append((atoms.info["tag"], len(atoms), energy, wrong, np.abs(forces).mean()))
    tags, n, energy, wrong, label = (np.array(column) for column in zip(*rows, strict=True))
    kinds = {"all": np.full(len(n), True), "nearly relaxed": label < RELAXED_FORCE} | {
        tag: tags == tag for tag in np.unique(tags)
    }
    return {
        kind: {
            "frames": int(of.sum()),
            "energy": 1e3 * float(energy[of].mean()),
            "energy_median": 1e3 * float(np.median(energy[of])),
            "forces": 1e3 * float(np.average(wrong[of], weights=n[of])),
            "label": 1e3 * float(np.average(label[of], weights=n[of])),
        }
        for kind, of in kinds.items()
    }


def solid(calc: AndersoNN, name: str) -> dict[str, float]:
    """Lattice constant (Å) and bulk modulus (GPa) of the minimum nearest to PBE's; nan where there is none."""
    lattice, a, modulus = SOLIDS[name]
    for _ in range(4):
        cells = [bulk(name, lattice, a=a * (1 + strain), cubic=True) for strain in STRAINS]
        energies = [result["energy"] for result in calc.evaluate(cells, forces=False)]
        lowest = int(np.argmin(energies))
        if 0 < lowest < len(cells) - 1:
            volume, _, curvature = EquationOfState(
                [cell.get_volume() for cell in cells], energies, eos="birchmurnaghan"
            ).fit()
            return {"a": volume ** (1 / 3), "K": curvature / units.GPa, "a_pbe": SOLIDS[name][1], "K_pbe": modulus}
        a *= 1 + STRAINS[lowest]
    return {"a": np.nan, "K": np.nan, "a_pbe": SOLIDS[name][1], "K_pbe": modulus}


def elements(calc: AndersoNN) -> dict[str, dict[str, float]]:
    """Volume of the lowest minimum beside the one measured, Å³/atom, nan without a minimum; number of minima."""
    found = {}
    for number, state in enumerate(reference_states):
        name = chemical_symbols[number]
        known = state is not None and "basis" not in state and state["symmetry"] in LATTICES
        if not known or name in NOBLE or number not in calc.model.elements:
            continue
        crystal = bulk(name)
        shares = np.linspace(0.7, 1.5, 33)
        cells = [crystal.copy() for _ in shares]
        for cell, share in zip(cells, shares, strict=True):
            cell.set_cell(crystal.cell.array * share ** (1 / 3), scale_atoms=True)
        energies = np.array([result["energy"] for result in calc.evaluate(cells, forces=False)])
        inner = np.flatnonzero((energies[1:-1] < energies[:-2]) & (energies[1:-1] < energies[2:])) + 1
        measured = crystal.get_volume() / len(crystal)
        lowest = int(np.argmin(energies))
        found[name] = {
            "volume": measured * shares[lowest] if lowest in inner else np.nan,
            "measured": measured,
            "minima": len(inner),
        }
    return found


def cost(calc: AndersoNN) -> dict[str, float]:
    """CPU time of energy and forces, µs/atom."""
    torch.set_num_threads(1)
    oxide = bulk("MgO", "rocksalt", a=4.26) * (2, 3, 5)
    systems = {
        "Si 512": bulk("Si", cubic=True) * (4, 4, 4),
        "NaCl 512": bulk("NaCl", "rocksalt", a=5.7, cubic=True) * (4, 4, 4),
        "Cu 864": bulk("Cu", cubic=True) * (6, 6, 6),
        "MgO 60": oxide,
    }
    rng = np.random.default_rng(0)

    def call(atoms: Atoms) -> None:
        moved = atoms.copy()
        moved.positions += rng.normal(0, 0.03, moved.positions.shape)
        calc.reset()
        calc.get_property("forces", moved)

    times = interleaved({name: lambda atoms=atoms: call(atoms) for name, atoms in systems.items()}, repeats=5)
    return {name: 1e6 * times[name].cpu_median / len(atoms) for name, atoms in systems.items()}


def markdown(data: dict[str, Any]) -> str:
    parts = []
    if "errors" in data:
        rows = [
            (kind, row["frames"], *(figure(row[key]) for key in ("energy", "energy_median", "forces", "label")))
            for kind, row in data["errors"].items()
        ]
        header = ("kind", "frames", "energy, meV/atom", "median", "forces, meV/Å", "mean label, meV/Å")
        parts.append(markdown_table(header, rows))
    if "solids" in data:
        rows = [
            (name, *(figure(row[key], 4) for key in ("a", "a_pbe", "K", "K_pbe")))
            for name, row in data["solids"].items()
        ]
        parts.append(markdown_table(("solid", "a, Å", "a of PBE, Å", "K, GPa", "K of PBE, GPa"), rows))
        a, k = (
            np.array([abs(row[key] / row[f"{key}_pbe"] - 1) for row in data["solids"].values()]) for key in ("a", "K")
        )
        parts.append(
            f"Mean absolute errors: lattice constants {100 * np.nanmean(a):.2f} %, bulk moduli "
            f"{100 * np.nanmean(k):.1f} %; {int(np.isfinite(a).sum())} of {len(a)} have their minimum."
        )
    if "elements" in data:
        found = data["elements"]
        wrong = {name: row["volume"] / row["measured"] - 1 for name, row in found.items()}
        inside = [name for name, value in wrong.items() if abs(value) <= 0.1]
        several = [name for name, row in found.items() if row["minima"] != 1]
        far = [name for name in found if name not in inside]
        parts.append(
            f"{len(found)} elements: volumes of {len(inside)} within 10 % of those measured, mean deviation "
            f"{100 * np.nanmean(np.abs(list(wrong.values()))):.1f} %. Farther, or without a minimum: "
            f"{', '.join(far) or 'none'}. With no or several minima: {', '.join(several) or 'none'}."
        )
    if "cost" in data:
        parts.append(markdown_table(("system", "µs/atom"), [(name, figure(t)) for name, t in data["cost"].items()]))
    return "\n\n".join([*parts, markdown_machine(data["machine"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a packaged model's name, or a path")
    parser.add_argument("--frames", help="labelled frames with the kind of each as `tag`")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--name", default="universal", help="of the results")
    args = parser.parse_args()
    calc = AndersoNN(args.model, compile=False)
    data: dict[str, Any] = {"machine": machine()}
    if "errors" in args.part:
        if args.frames is None:
            parser.error("the part errors needs --frames")
        data["errors"] = errors(calc, read(args.frames, ":"))
    if "solids" in args.part:
        data["solids"] = {name: solid(calc, name) for name in SOLIDS}
    if "elements" in args.part:
        data["elements"] = elements(calc)
    if "cost" in args.part:
        data["cost"] = cost(calc)
    text = markdown(data)
    write_results(args.name, data, text)
    print(text)


if __name__ == "__main__":
    main()
