"""Frameworks of the shared tables as extended XYZ: `value` is the largest cavity diameter in Å.

python frames.py core2019asr_train.npz --atoms 100 --output frames
python frames.py core2019asr_test.npz --output frames

Structures with two atoms closer than 0.7 Å are left out, and counted. Fractional coordinates are stored in 16 bits.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

VALUE = "LCD"
CLOSEST = 0.7  # Å


def frames(table: Path, value: str = VALUE, most_atoms: int | None = None) -> Iterator[Atoms]:
    """The sound frameworks of a table, each with its value; only those of so many atoms, where a number is given."""
    data = dict(np.load(table))
    start = np.concatenate([[0], np.cumsum(data["n_atoms"])])
    small = data["n_atoms"] <= (most_atoms or np.inf)
    for k in np.flatnonzero((data["min_distance_A"] >= CLOSEST) & small):
        own = slice(start[k], start[k + 1])
        frac = data["frac_u16"][own] / 65536.0
        atoms = Atoms(data["numbers"][own], scaled_positions=frac, cell=data["cell"][k], pbc=True)
        atoms.info |= {"value": float(data[value][k]), "name": str(data["name"][k])}
        yield atoms


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the tables given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("frames"), help="folder for the extxyz files (frames)")
    parser.add_argument("--value", default=VALUE, help=f"column of the tables: LCD, PLD or LFPD ({VALUE})")
    parser.add_argument("--atoms", type=int, help="leave out cells of more atoms")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    for table in args.tables:
        found = list(frames(table, args.value, args.atoms))
        unsound = int((np.load(table)["min_distance_A"] < CLOSEST).sum())
        write(args.output / f"{table.stem}.extxyz", found, format="extxyz")
        print(f"{table.stem}: {len(found)} frameworks; {unsound} with atoms closer than {CLOSEST} Å left out")


if __name__ == "__main__":
    main()
