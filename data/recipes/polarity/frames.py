"""Molecules of the shared tables as extended XYZ: `value` is the length of the GFN2-xTB dipole moment in debye.

python frames.py dipole_train.npz dipole_test.npz --output frames [--value dipole_debye]

The GFN2 dipoles belong to the geometries given; `dipole_debye` is B3LYP's, of other conformers where a molecule is
flexible.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

VALUE = "gfn2_dipole_vec_debye"


def frames(table: Path, value: str = VALUE) -> Iterator[Atoms]:
    """The molecules of a table, each with its value."""
    data = dict(np.load(table))
    start = np.concatenate([[0], np.cumsum(data["n_atoms"])])
    for k, moment in enumerate(data[value]):
        own = slice(start[k], start[k + 1])
        atoms = Atoms(data["numbers"][own], data["positions"][own])
        atoms.info |= {"value": float(np.linalg.norm(moment)), "smiles": str(data["smiles"][k])}
        yield atoms


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the tables given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("frames"), help="folder for the extxyz files (frames)")
    parser.add_argument("--value", default=VALUE, help=f"column of the tables ({VALUE})")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    for table in args.tables:
        found = list(frames(table, args.value))
        write(args.output / f"{table.stem}.extxyz", found, format="extxyz")
        print(f"{table.stem}: {len(found)} molecules")


if __name__ == "__main__":
    main()
