"""Molecules at rest, of tables of arrays, as extended XYZ with the energies and forces of GFN2-xTB.

python frames.py dipole_train.npz dipole_test.npz --output frames

The tables hold `n_atoms`, `smiles`, and of all molecules one after another `numbers` [n], `positions` [n, 3] in Å,
`gfn2_energy_eV` (one a molecule) and `gfn2_forces_eV_A` [n, 3].
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

LARGEST_FORCE = 60.0
"""eV/Å; molecules with more are left out, as in ../../organic/make.py."""


def frames(table: Path) -> Iterator[Atoms]:
    """The molecules of a table whose labels are finite."""
    data = dict(np.load(table))
    start = np.concatenate([[0], np.cumsum(data["n_atoms"])])
    for k, energy in enumerate(data["gfn2_energy_eV"]):
        own = slice(start[k], start[k + 1])
        forces = np.asarray(data["gfn2_forces_eV_A"][own], float)
        if not np.isfinite(energy) or not np.linalg.norm(forces, axis=1).max() <= LARGEST_FORCE:
            continue
        atoms = Atoms(data["numbers"][own], data["positions"][own])
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces)
        atoms.info |= {"kind": "rest", "smiles": str(data["smiles"][k])}
        yield atoms


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the tables given; their SMILES are written beside them, for ../../organic/make.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("frames"), help="folder for the files (frames)")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    for table in args.tables:
        found = list(frames(table))
        write(args.output / f"{table.stem}.extxyz", found, format="extxyz")
        smiles = "".join(f"{name}\n" for name in np.load(table)["smiles"])
        (args.output / f"{table.stem}.smi").write_text(smiles, encoding="utf-8")
        print(f"{table.stem}: {len(found)} molecules")


if __name__ == "__main__":
    main()
