"""Lattice constants, elastic constants, vacancies and phonons of crystals, beside density-functional theory.

    python -m benchmarks.accuracy.properties [--model mlearn-pbe] [--elements Li Mo Ni Cu Si] [--phonons FILE]

- a: the cubic lattice constant at zero stress, Å;
- C11, C12, C44: slope of the stress in strains of ±0.5 %, atoms relaxed, GPa;
- vacancy: `E(N − 1) − E(N) (N − 1) / N` of a relaxed supercell of that lattice constant, eV;
- phonons: frequencies of silicon at Γ, X and L, THz, from the displacements of FILE, which holds the forces of DFT too
  (`phonopy_params_Si.yaml` of phonopy, github.com/phonopy/phonopy, BSD-3; compressed by xz or not).

References: Zuo et al., J. Phys. Chem. A 124, 731 (2020), PBE, the level that the model was trained on.
"""

from __future__ import annotations

import argparse
import json
import lzma
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
from ase import Atoms, units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_andersonn import AndersoNN
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results

DFT = {
    "Li": {"a": 3.427, "C11": 15.0, "C12": 13.0, "C44": 11.0, "vacancy": 0.62},
    "Mo": {"a": 3.168, "C11": 472.0, "C12": 158.0, "C44": 106.0, "vacancy": 2.70},
    "Ni": {"a": 3.508, "C11": 276.0, "C12": 159.0, "C44": 132.0, "vacancy": 1.49},
    "Cu": {"a": 3.621, "C11": 173.0, "C12": 133.0, "C44": 88.0, "vacancy": 1.15},
    "Si": {"a": 5.469, "C11": 156.0, "C12": 65.0, "C44": 76.0, "vacancy": 3.25},
}
"""Å, GPa and eV."""
STRAIN = 0.005
REPEATS = {"Li": 4, "Mo": 4, "Ni": 3, "Cu": 3, "Si": 3}
"""Cubic cells along each side of the supercell with a vacancy: 107, 127 or 215 atoms are left."""
FORCE = 1e-4
"""eV/Å at which a relaxation ends."""
POINTS = {"Γ": (0.0, 0.0, 0.0), "X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)}


def relaxed(atoms: Atoms, *, cell: bool = False) -> Atoms:
    """The atoms, and where wanted the cell, at rest.

    Raises:
        RuntimeError: where 500 steps are not enough.
    """
    what: Any = FrechetCellFilter(atoms) if cell else atoms
    with BFGS(what, logfile=None) as search:
        if not search.run(fmax=FORCE, steps=500):
            raise RuntimeError(f"{atoms.get_chemical_formula()} was not at rest after 500 steps.")
    return atoms


def crystal(symbol: str, calc: AndersoNN) -> Atoms:
    atoms = bulk(symbol, cubic=True, a=DFT[symbol]["a"])
    atoms.calc = calc
    return relaxed(atoms, cell=True)


def stress_of(atoms: Atoms, strain: Sequence[float]) -> np.ndarray:
    """Stress (6,), GPa, of the strained crystal with its atoms at rest; Voigt strain (6,)."""
    xx, yy, zz, yz, xz, xy = strain
    deformation = np.eye(3) + np.array([[xx, xy / 2, xz / 2], [xy / 2, yy, yz / 2], [xz / 2, yz / 2, zz]])
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    strained.calc = atoms.calc
    return np.asarray(relaxed(strained).get_stress()) / units.GPa


def elastic_constants(atoms: Atoms) -> dict[str, float]:
    """C11, C12 and C44 of a cubic crystal, GPa, by central differences."""
    slopes = []
    for component in (0, 3):
        strain = np.zeros(6)
        strain[component] = STRAIN
        slopes.append((stress_of(atoms, list(strain)) - stress_of(atoms, list(-strain))) / (2 * STRAIN))
    return {"C11": float(slopes[0][0]), "C12": float(slopes[0][1:3].mean()), "C44": float(slopes[1][3])}


def vacancy_energy(atoms: Atoms, repeats: int) -> float:
    """Formation energy of a vacancy at constant volume, eV."""
    perfect = atoms * (repeats, repeats, repeats)
    perfect.calc = atoms.calc
    whole = perfect.get_potential_energy()
    missing = perfect[1:]
    missing.calc = atoms.calc
    return float(relaxed(missing).get_potential_energy() - whole * len(missing) / len(perfect))


def properties(symbol: str, calc: AndersoNN) -> dict[str, float]:
    atoms = crystal(symbol, calc)
    lattice = float(atoms.cell.lengths().mean())
    return {"a": lattice, **elastic_constants(atoms), "vacancy": vacancy_energy(atoms, REPEATS[symbol])}


def decompressed(path: Path, folder: Path) -> Path:
    if path.suffix != ".xz":
        return path
    plain = folder / path.stem
    plain.write_bytes(lzma.decompress(path.read_bytes()))
    return plain


def frequencies(found: Any) -> dict[str, list[float]]:
    found.produce_force_constants()
    found.run_qpoints(list(POINTS.values()))
    return dict(zip(POINTS, found.qpoints.frequencies.tolist(), strict=True))


def phonons(path: Path, calc: AndersoNN) -> dict[str, dict[str, list[float]]]:
    """Frequencies, THz, at the special points, of the file's forces and of the model's at the same displacements."""
    with tempfile.TemporaryDirectory() as folder:
        found: Any = phonopy.load(decompressed(path, Path(folder)), log_level=0)
    dft = frequencies(found)
    forces = []
    for cell in found.supercells_with_displacements:
        atoms = Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True, calculator=calc)
        forces.append(atoms.get_forces())
    found.forces = np.array(forces)
    return {"DFT": dft, "model": frequencies(found)}


def property_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = list(DFT["Si"])
    header = ["", "a, Å", "C11, GPa", "C12, GPa", "C44, GPa", "vacancy, eV"]
    lines = []
    for symbol, row in rows.items():
        cells = [
            f"{figure(row[n], 4)} ({figure(DFT[symbol][n], 4)}; {100 * (row[n] / DFT[symbol][n] - 1):+.1f} %)"
            for n in names
        ]
        lines.append([symbol, *cells])
    return markdown_table(header, lines)


def phonon_table(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    header = ["", *POINTS]
    return markdown_table(
        header, [[name, *(" ".join(f"{f:.2f}" for f in row[p]) for p in POINTS)] for name, row in rows.items()]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlearn-pbe", help="name or path")
    parser.add_argument("--elements", nargs="+", choices=list(DFT), default=list(DFT))
    parser.add_argument("--phonons", type=Path, help="silicon's displacements and forces, as phonopy saves them")
    options = parser.parse_args()
    calc = AndersoNN(options.model, dtype="float64", tol=1e-10, warm_start=False, compile=False, device="cpu")
    path, facts = RESULTS / "properties.json", machine()
    data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if data.get("model") != options.model:
        data = {"model": options.model, "properties": {}}
    rows = data["properties"]
    for symbol in options.elements:
        rows[symbol] = properties(symbol, calc)
        print(symbol, {name: round(value, 4) for name, value in rows[symbol].items()}, flush=True)
    data |= {"machine": facts, "dft": DFT}
    parts = [
        "# Properties of crystals",
        f"{options.model}, float64; in brackets DFT (PBE), Zuo et al., J. Phys. Chem. A 124, 731; and the error.",
        markdown_machine(facts),
        property_table(rows),
    ]
    if options.phonons is not None:
        data["phonons"] = phonons(options.phonons, calc)
    if "phonons" in data:
        parts += ["## Phonons of silicon, THz", "At the lattice constant of the DFT file, from its displacements."]
        parts += [phonon_table(data["phonons"])]
    write_results("properties", data, "\n\n".join(parts))


if __name__ == "__main__":
    main()
