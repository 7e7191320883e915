"""Lattice constants, elastic constants, vacancies and phonons of crystals, beside density-functional theory.

    python -m benchmarks.accuracy.properties [--model mlearn-pbe] [--elements Li Mo Ni Cu Si] [--phonons FOLDER]

- a: the cubic lattice constant at zero stress, Å;
- C11, C12, C44: slope of the stress in strains of up to ±0.5 %, atoms relaxed, GPa;
- vacancy: `E(N − 1) − E(N) (N − 1) / N` of a relaxed supercell of that lattice constant, eV;
- phonons: frequencies at Γ, X and L and the mean error on a mesh, THz, without the non-analytical correction, of the
  crystals in FOLDER, whose files `*_phonopy_params.yaml` hold cells, displacements and forces of DFT as phonopy saves
  them (github.com/phonopy/phonopy, BSD-3; compressed by xz or not), by the model and by `universal`, as far as they
  know the elements.

All are `ase_andersonn.workflows`. References: Zuo et al., J. Phys. Chem. A 124, 731 (2020), PBE, the level that
`mlearn-pbe` was trained on.
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
from ase.build import bulk

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.elastic import elastic_constants
from ase_andersonn.workflows.phonons import from_phonopy
from ase_andersonn.workflows.phonons import phonons as phonons_of
from ase_andersonn.workflows.relax import at_rest
from ase_andersonn.workflows.vacancies import vacancy_formation
from benchmarks._common import RESULTS, figure, machine, markdown_machine, markdown_table, write_results

DFT = {
    "Li": {"a": 3.427, "C11": 15.0, "C12": 13.0, "C44": 11.0, "vacancy": 0.62},
    "Mo": {"a": 3.168, "C11": 472.0, "C12": 158.0, "C44": 106.0, "vacancy": 2.70},
    "Ni": {"a": 3.508, "C11": 276.0, "C12": 159.0, "C44": 132.0, "vacancy": 1.49},
    "Cu": {"a": 3.621, "C11": 173.0, "C12": 133.0, "C44": 88.0, "vacancy": 1.15},
    "Si": {"a": 5.469, "C11": 156.0, "C12": 65.0, "C44": 76.0, "vacancy": 3.25},
}
"""Å, GPa and eV."""
REPEATS = {"Li": 4, "Mo": 4, "Ni": 3, "Cu": 3, "Si": 3}
"""Cubic cells along each side of the supercell with a vacancy: 107, 127 or 215 atoms are left."""
FORCE = 1e-4
"""eV/Å at which a relaxation ends."""
POINTS = {"Γ": (0.0, 0.0, 0.0), "X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5)}
MESH = (11, 11, 11)


def calculator(model: str) -> AndersoNN:
    return AndersoNN(model, dtype="float64", tol=1e-10, warm_start=False, compile=False, device="cpu")


def properties(symbol: str, calc: AndersoNN) -> dict[str, float]:
    (crystal,) = at_rest([bulk(symbol, cubic=True, a=DFT[symbol]["a"])], calc, cell="free", fmax=FORCE)
    tensor = elastic_constants(crystal, calc, relax_cell=False, fmax=FORCE).tensor
    (vacancy,) = vacancy_formation(
        crystal, calc, supercell=[REPEATS[symbol]] * 3, relax_cell=False, fmax=FORCE
    ).vacancies
    return {
        "a": float(crystal.cell.lengths().mean()),
        "C11": float(tensor[0, 0]),
        "C12": float(tensor[0, 1:3].mean()),
        "C44": float(tensor[3, 3]),
        "vacancy": vacancy.formation_energy,
    }


def decompressed(path: Path, folder: Path) -> Path:
    if path.suffix != ".xz":
        return path
    plain = folder / path.stem
    plain.write_bytes(lzma.decompress(path.read_bytes()))
    return plain


def frequencies(found: Any) -> tuple[dict[str, list[float]], np.ndarray]:
    """At the special points, and on the mesh."""
    found.run_qpoints(list(POINTS.values()))
    found.run_mesh(MESH)
    return dict(zip(POINTS, found.qpoints.frequencies.tolist(), strict=True)), found.mesh.frequencies


def phonons(path: Path, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Frequencies, THz, of the file's forces and of the models' in the same supercells."""
    with tempfile.TemporaryDirectory() as folder:
        dft: Any = phonopy.load(decompressed(path, Path(folder)), log_level=0, is_nac=False)
    dft.produce_force_constants()
    points, expected = frequencies(dft)
    rows: dict[str, dict[str, Any]] = {"DFT": points}
    crystal, matrix = from_phonopy(dft.unitcell), np.array(dft.supercell_matrix).T
    for model in models:
        calc = calculator(model)
        if set(crystal.numbers) <= set(calc.model.elements):
            points, own = frequencies(phonons_of(crystal, calc, supercell=matrix, relax_cell=False).phonopy)
            rows[model] = points | {"mean error": float(np.abs(own - expected).mean())}
    return rows


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


def phonon_table(crystals: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    rows = []
    for crystal, found in crystals.items():
        for name, row in found.items():
            cells = [" ".join(f"{f + 0.0:.2f}" for f in row[p]).replace("-0.00", "0.00") for p in POINTS]
            rows.append([f"{crystal}, {name}", *cells, figure(row["mean error"]) if "mean error" in row else ""])
    return markdown_table(["", *POINTS, "mean error"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlearn-pbe", help="name or path")
    parser.add_argument("--elements", nargs="*", choices=list(DFT), default=list(DFT))
    parser.add_argument("--phonons", type=Path, help="folder of *_phonopy_params.yaml, .xz or not")
    options = parser.parse_args()
    calc = calculator(options.model)
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
        files = sorted(options.phonons.glob("*_phonopy_params.yaml*"))
        models = dict.fromkeys([options.model, "universal"])
        data["phonons"] = {file.name.partition("_")[0]: phonons(file, list(models)) for file in files}
    if "phonons" in data:
        parts += ["## Phonons, THz", "At the lattice constants of the DFT files (PBE), in their supercells."]
        parts += [phonon_table(data["phonons"])]
    write_results("properties", data, "\n\n".join(parts))


if __name__ == "__main__":
    main()
