"""Relaxed volumes, moduli and heat capacities of compounds beside density-functional theory.

    python -m benchmarks.accuracy.materials CALCULATOR --data FOLDER [--part volumes moduli heat] [--number 100]

CALCULATOR is a model's name or path, or module:Class,argument for any other ASE calculator, such as
calorine.calculators:CPUNEP,nep89.txt. FOLDER holds MatCalc's benchmark files (wbm-random-pbe52-equilibrium,
mp-binary-pbe-elasticity, alexandria-binary-pbe-phonon). Only formulas that `data/universal` holds out of every part are
taken, the first of a fixed random order; median and mean absolute errors.

- volumes: relaxed from the reference, beside it (relative).
- moduli: Voigt–Reuss–Hill averages of the relaxed crystals, GPa.
- heat: C_V at 300 K from phonons of supercells of at least 8 Å, J/(K mol) an atom.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.elastic import elastic_constants
from ase_andersonn.workflows.phonons import phonons
from ase_andersonn.workflows.relax import relax
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data" / "universal"))

Row = dict[str, float]


def calculator(name: str) -> Any:
    """The calculator of this name, with forces fit for derivatives."""
    if ":" not in name:
        return AndersoNN(name, tol=1e-8, warm_start=False)
    place, *arguments = name.split(",")
    module, _, kind = place.partition(":")
    return getattr(importlib.import_module(module), kind)(*arguments)


def crystals(path: Path, number: int, most: int = 40) -> list[tuple[Atoms, dict[str, Any]]]:
    """Crystals of held-out formulas, of at most so many atoms, with their reference values."""
    from split import formula, held_out

    rows = json.loads(gzip.decompress(path.read_bytes()))
    found = [(AseAtomsAdaptor.get_atoms(Structure.from_dict(row.pop("structure"))), row) for row in rows]
    kept = held_out(formula(atoms) for atoms, _ in found)
    order = np.random.default_rng(0).permutation(len(found))
    chosen = [found[k] for k in order if formula(found[k][0]) in kept and len(found[k][0]) <= most]
    return [(Atoms(atoms), row) for atoms, row in chosen[:number]]


def volumes(atoms: Atoms, _: dict[str, Any], calc: Any) -> Row:
    found = relax(atoms, calc, fmax=0.02, steps=500)
    n = len(atoms)
    return {
        "converged": float(found.converged),
        "volume": found.volume / n,
        "volume_dft": atoms.cell.volume / n,
    }


def moduli(atoms: Atoms, row: dict[str, Any], calc: Any) -> Row:
    found = elastic_constants(atoms, calc, fmax=5e-3)
    return {
        "bulk": found.bulk_modulus,
        "bulk_dft": row["bulk_modulus_vrh"],
        "shear": found.shear_modulus,
        "shear_dft": row["shear_modulus_vrh"],
    }


def heat(atoms: Atoms, row: dict[str, Any], calc: Any) -> Row:
    relaxed = relax(atoms, calc, fmax=5e-3).atoms
    found = phonons(relaxed, calc, min_length=8.0, mesh=30.0, temperatures=[300.0], points=2)
    return {"heat": found.heat_capacity[0] / len(atoms), "heat_dft": row["heat_capacity"] / len(atoms)}


PARTS: dict[str, tuple[str, Callable[..., Row]]] = {
    "volumes": ("wbm-random-pbe52-equilibrium*", volumes),
    "moduli": ("mp-binary-pbe-elasticity*", moduli),
    "heat": ("alexandria-binary-pbe-phonon*", heat),
}


def measured(part: str, folder: Path, number: int, calc: Any) -> Iterator[Row]:
    """What was found of each crystal; of one that fails, nothing but that."""
    pattern, compute = PARTS[part]
    (path,) = folder.glob(pattern)
    for atoms, row in crystals(path, number):
        try:
            yield compute(atoms, row, calc)
        except Exception as error:  # counted, and named
            print(f"{atoms.symbols}: {error}", file=sys.stderr)
            yield {}


def summary(part: str, rows: list[Row]) -> dict[str, float]:
    """Errors over the crystals that did not fail."""
    good = [row for row in rows if row]
    found: dict[str, float] = {"crystals": len(rows), "failed": len(rows) - len(good)}
    names = [name for name in good[0] if f"{name}_dft" in good[0]]
    for name in names:
        value, right = (np.array([row[key] for row in good]) for key in (name, f"{name}_dft"))
        off = np.abs(value / right - 1 if name == "volume" else value - right)
        found |= {f"{name}, mean": float(off.mean()), f"{name}, median": float(np.median(off))}
    if part == "volumes":
        found["converged"] = sum(row["converged"] for row in good)
        found["volumes within 10 %"] = float(
            np.mean([abs(row["volume"] / row["volume_dft"] - 1) < 0.1 for row in good])
        )
    return found


def markdown(data: dict[str, Any]) -> str:
    text = ["# Compounds beside density-functional theory", (__doc__ or "").split("\n\n", 2)[2]]
    for part in PARTS:
        columns = {name: parts[part] for name, parts in data["calculators"].items() if part in parts}
        if columns:
            keys = list(next(iter(columns.values())))
            rows = [(key, *(figure(column[key], 4) for column in columns.values())) for key in keys]
            text.append(markdown_table((part, *columns), rows))
    return "\n\n".join([*text, markdown_machine(data["machine"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("calculator")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--number", type=int, default=100, help="of crystals of each part")
    parser.add_argument("--label", help="column of the results; the calculator if not given")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    path = RESULTS / "materials.json"
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"calculators": {}}
    calc = calculator(args.calculator)
    for part in args.part:
        begun = time.process_time()
        found = summary(part, list(measured(part, args.data, args.number, calc)))
        found["CPU time, s"] = time.process_time() - begun
        data["calculators"].setdefault(args.label or args.calculator, {})[part] = found
        data["machine"] = machine()
        write_results("materials", data, markdown(data))
    print(markdown(data))


if __name__ == "__main__":
    main()
