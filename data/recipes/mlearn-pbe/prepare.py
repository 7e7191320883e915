"""The mlearn data set as extended XYZ: `<element>_train.extxyz` and `<element>_test.extxyz`, in ASE's units and sign.

The JSON files are lists of entries with `structure` (a pymatgen structure), `group`, `description`, and `outputs`:
`energy` in eV, `forces` in eV/Å, `virial_stress` in kbar, order xx yy zz xy yz zx, positive on compression.
ASE's stress σ = (1/V) dE/dε is in eV/Å³, order xx yy zz yz xz xy, negative on compression.

    python prepare.py path/to/mlearn/data --output frames
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import GPa
from pymatgen.core import Structure

KBAR = 0.1 * GPa
ASE_ORDER = [0, 1, 2, 4, 5, 3]
"""Places of ASE's components xx yy zz yz xz xy in VASP's order."""
SPLITS = {"training.json": "train", "test.json": "test"}


def ase_stress(virial_stress: Sequence[float]) -> np.ndarray:
    """σ = −p, eV/Å³ in ASE's Voigt order, from kbar in VASP's order and sign."""
    return -KBAR * np.asarray(virial_stress, dtype=float)[ASE_ORDER]


def to_atoms(entry: dict[str, Any], *, stress: bool = True) -> Atoms:
    """One entry as labelled atoms.

    Raises:
        ValueError: if there are not as many forces as atoms.
    """
    atoms = Atoms(Structure.from_dict(entry["structure"]).to_ase_atoms(msonable=False))
    outputs = entry["outputs"]
    forces = np.asarray(outputs["forces"], dtype=float)
    if forces.shape != (len(atoms), 3):
        raise ValueError(f"{entry.get('description')}: forces have shape {forces.shape}, atoms are {len(atoms)}.")
    results = {"energy": outputs["energy"], "forces": forces}
    if stress and outputs.get("virial_stress") is not None:
        results["stress"] = ase_stress(outputs["virial_stress"])
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update({key: entry[key] for key in ("group", "description") if key in entry})
    return atoms


def check_sign(frames: Sequence[Atoms]) -> None:
    """The trace of the stress must grow with the volume of the elastically strained crystals.

    Raises:
        ValueError: if it falls, as it does where the sign of the data is another one.
    """
    elastic = [a for a in frames if a.info.get("group") == "Elastic" and "stress" in a.calc.results]
    volumes = [a.get_volume() / len(a) for a in elastic]
    traces = [a.get_stress()[:3].sum() for a in elastic]
    if len(elastic) > 2 and np.ptp(volumes) > 0 and np.corrcoef(volumes, traces)[0, 1] < 0:
        raise ValueError("the stress falls with the volume: `virial_stress` has another sign than expected.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the files of the elements asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with <element>/training.json and <element>/test.json")
    parser.add_argument("--output", type=Path, default=Path("frames"), help="folder for the extxyz files (frames)")
    parser.add_argument("--elements", nargs="+", default=["Li", "Mo", "Ni", "Cu", "Si"], help="Li Mo Ni Cu Si")
    parser.add_argument("--no-stress", nargs="*", default=[], metavar="ELEMENT", help="leave the stress of these out")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    for element in args.elements:
        for source, split in SPLITS.items():
            entries = json.loads((args.data / element / source).read_text(encoding="utf-8"))
            frames = [to_atoms(entry, stress=element not in args.no_stress) for entry in entries]
            check_sign(frames)
            target = args.output / f"{element}_{split}.extxyz"
            write(target, frames, format="extxyz")
            print(f"{target}: {len(frames)} frames")


if __name__ == "__main__":
    main()
