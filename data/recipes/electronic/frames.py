"""Crystals of the shared tables as extended XYZ: `value` is the band gap in eV.

python frames.py mp20bt_train.npz mp20bt_test.npz wbm10k.npz --output frames

The tables hold `cell` [n, 3, 3], `n_atoms` [n], and for all atoms in a row `numbers` and fractional coordinates `frac`.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

VALUE = "band_gap"


def frames(table: Path, value: str = VALUE) -> Iterator[Atoms]:
    """The structures of a table, each with its value."""
    data = dict(np.load(table))
    start = np.concatenate([[0], np.cumsum(data["n_atoms"])])
    for k, cell in enumerate(data["cell"]):
        own = slice(start[k], start[k + 1])
        atoms = Atoms(data["numbers"][own], scaled_positions=data["frac"][own], cell=cell, pbc=True)
        atoms.info["value"] = float(data[value][k])
        yield atoms


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the tables given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("frames"), help="folder for the extxyz files (frames)")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    for table in args.tables:
        found = list(frames(table))
        write(args.output / f"{table.stem}.extxyz", found, format="extxyz")
        print(f"{table.stem}: {len(found)} structures")


if __name__ == "__main__":
    main()
