"""The figures of the commands beside those of matcalc, phonopy and ASE with the same model.

    python -m benchmarks.accuracy.commands [--model mlearn-pbe] [--elements Si Cu]

`andersonn relax, eos, elastic, phonons, qha, vacancy, neb` as a user calls them, in float32; the others with a
calculator in float64, tolerance 1e-9: matcalc's classes for the first five at the settings of the commands, ASE's BFGS
and NEB for vacancy and barrier. Needs `pip install matcalc`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk, make_supercell
from ase.io import write
from ase.mep import NEB
from ase.optimize import BFGS

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.relax import at_rest
from benchmarks._common import figure, machine, markdown_machine, markdown_table, write_results

REPEATS = 3
"""Primitive cells along each side of all supercells but those of `phonons` and `qha`, which are 12 Å across."""
T = 300.0


def andersonn(*arguments: object) -> dict[str, Any]:
    """The one result that a command prints as JSON."""
    command = [sys.executable, "-m", "ase_andersonn.cli", *map(str, arguments), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)[0])


def ends(element: str, calc: Any) -> list[Any]:
    """A vacancy, and the same after a neighbour has jumped into it."""
    (crystal,) = at_rest([bulk(element)], calc, cell="free", fmax=1e-3)
    perfect = make_supercell(crystal, np.eye(3) * REPEATS)
    near = int(perfect.get_distances(0, range(1, len(perfect)), mic=True).argmin()) + 1
    initial, final = perfect[1:], perfect[1:]
    final.positions[near - 1] = perfect.positions[0]
    return [initial, final]


def by_commands(model: str, path: str, moved: list[str]) -> dict[str, float]:
    given = (path, "--model", model)
    relaxed, eos = andersonn("relax", *given, "--fmax", 1e-3), andersonn("eos", *given)
    tensor = np.array(andersonn("elastic", *given)["tensor"])
    phonons, qha = andersonn("phonons", *given), andersonn("qha", *given)
    k = phonons["temperatures"].index(T)
    vacancy = andersonn("vacancy", *given, "--min-length", 6.4)["vacancies"][0]
    band = andersonn("neb", *moved, "--model", model, "--images", 3, "--fmax", 0.02)
    n = len(relaxed["atoms"]["symbols"])
    return {
        "volume, Å³/atom": relaxed["volume"] / n,
        "strain": (max(eos["volumes"]) / min(eos["volumes"])) ** (1 / 6) - 1,
        "B₀ of the equation of state, GPa": eos["bulk_modulus"],
        **_cubic(tensor),
        "highest frequency, THz": max(max(max(rows) for rows in part) for part in phonons["bands"]["frequencies"]),
        "entropy at 300 K, J/(K mol)": phonons["entropy"][k],
        "heat capacity at 300 K, J/(K mol)": phonons["heat_capacity"][k],
        "expansion at 300 K, 10⁻⁶/K": 1e6 * qha["thermal_expansion"][qha["temperatures"].index(T)],
        "vacancy, eV": vacancy["formation_energy"],
        "barrier of its jump, eV": band["barrier"] if band["converged"] else float("nan"),
    }


def _cubic(tensor: np.ndarray) -> dict[str, float]:
    """Invariants of a tensor in any axes: bulk modulus and Voigt's shear modulus."""
    trace, off = tensor[:3, :3].trace(), 2 * (tensor[0, 1] + tensor[0, 2] + tensor[1, 2])
    shear = tensor[3:, 3:].trace()
    return {"B of the elastic tensor, GPa": (trace + off) / 9, "G (Voigt), GPa": (trace - off / 2 + 3 * shear) / 15}


def by_others(element: str, calc: Any, moved: list[Any], strain: float) -> dict[str, float]:
    """The same with matcalc and ASE; `strain` of the lengths is that of the command's equation of state."""
    from matcalc import ElasticityCalc, EOSCalc, PhononCalc, QHACalc, RelaxCalc

    relaxed = RelaxCalc(calc, fmax=1e-4, optimizer="BFGS").calc(bulk(element))
    atoms = relaxed["final_structure"].to_ase_atoms()
    held = {"relax_structure": False, "fmax": 1e-4, "optimizer": "BFGS"}
    eos = EOSCalc(calc, max_abs_strain=strain, allow_shape_change=False, **held).calc(atoms)
    strains = (-0.005, -0.0025, 0.0025, 0.005)
    elastic = ElasticityCalc(
        calc, norm_strains=strains, shear_strains=strains, relax_structure=False, relax_deformed_structures=True,
        fmax=1e-4, units_GPa=True,
    ).calc(atoms)  # fmt: skip
    faces = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    matrix = np.diag(np.ceil(12.0 / faces).astype(int))
    options = {"supercell_matrix": matrix, "atom_disp": 0.01, "write_phonon": False}
    phonons = PhononCalc(calc, relax_structure=False, **options).calc(atoms)
    qha = QHACalc(
        calc, scale_factors=np.linspace(0.96, 1.10, 11) ** (1 / 3), relax_structure=False, phonon_calc_kwargs=options
    ).calc(atoms)
    k = list(phonons["thermal_properties"]["temperatures"]).index(T)
    perfect = make_supercell(atoms, np.eye(3) * REPEATS)
    perfect.calc = calc
    whole, hole = float(perfect.get_potential_energy()), perfect[1:]
    hole.calc = calc
    BFGS(hole, logfile=None).run(fmax=1e-3)
    phonon = phonons["phonon"]
    phonon.auto_band_structure()
    (found,) = qha["qha_results"]
    expansion = found["thermal_expansion_coefficients"]
    return {
        "volume, Å³/atom": relaxed["volume"] / len(atoms),
        "B₀ of the equation of state, GPa": eos["bulk_modulus_bm"],
        **_cubic(np.array(elastic["elastic_tensor"].voigt)),
        "highest frequency, THz": max(float(part.max()) for part in phonon.band_structure.frequencies),
        "entropy at 300 K, J/(K mol)": phonons["thermal_properties"]["entropy"][k],
        "heat capacity at 300 K, J/(K mol)": phonons["thermal_properties"]["heat_capacity"][k],
        "expansion at 300 K, 10⁻⁶/K": 1e6 * expansion[list(qha["temperatures"]).index(T)],
        "vacancy, eV": float(hole.get_potential_energy()) - whole * len(hole) / len(perfect),
        "barrier of its jump, eV": _barrier(calc, moved),
    }


def _barrier(calc: Any, moved: list[Any]) -> float:
    first, last = (end.copy() for end in moved)
    for end in (first, last):
        end.calc = calc
        BFGS(end, logfile=None).run(fmax=0.01)
    images = [first, *(first.copy() for _ in range(3)), last]
    for image in images:
        image.calc = calc
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(method="idpp", mic=True)
    BFGS(band, logfile=None).run(fmax=0.02, steps=500)
    energies = [image.get_potential_energy() for image in images]
    return float(max(energies) - energies[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mlearn-pbe", help="name or path")
    parser.add_argument("--elements", nargs="+", default=["Si", "Cu"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    calc = AndersoNN(options.model, dtype="float64", tol=1e-9, warm_start=False, compile=False, device="cpu")
    facts, data, parts = machine(), {}, []
    for element in options.elements:
        with tempfile.TemporaryDirectory() as folder:
            path, moved = Path(folder) / "crystal.vasp", ends(element, calc)
            write(path, bulk(element))
            names = [str(Path(folder) / f"{name}.xyz") for name in ("initial", "final")]
            for name, atoms in zip(names, moved, strict=True):
                write(name, atoms)
            own = by_commands(options.model, str(path), names)
            print(element, "commands", own, flush=True)
            others = by_others(element, calc, moved, own.pop("strain"))
            print(element, "others", others, flush=True)
        data[element] = {"commands": own, "others": others}
        rows = [
            [name, figure(own[name], 5), figure(others[name], 5), f"{100 * (own[name] / others[name] - 1):+.2f} %"]
            for name in own
        ]
        parts += [f"## {element}", markdown_table(["", "andersonn", "matcalc, ASE", "difference"], rows)]
    title = ["# Commands beside matcalc, phonopy and ASE", f"{options.model}.", markdown_machine(facts)]
    write_results("commands", {"machine": facts, "model": options.model, **data}, "\n\n".join([*title, *parts]))


if __name__ == "__main__":
    main()
