"""The packed arrays of a universal set as extended XYZ, for `andersonn train`.

python frames.py folder --output frames

The folder holds `train.npz`, `valid.npz` and `test.npz`, as ../../universal/make.py writes them; the frames have
energy, forces and stress, and in their comment lines `tag` and `step`. Half a minute of a free core for 93,000 frames.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.io import write

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "universal"))

from packed import read, take, unpack

PARTS = ("train", "valid", "test")


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert the files of a folder, or as many structures of each as asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with train.npz, valid.npz, test.npz")
    parser.add_argument("--output", type=Path, default=Path("frames"), help="folder for the extxyz files (frames)")
    parser.add_argument("--number", type=int, help="the first so many training frames only")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        packed = read(args.folder / f"{part}.npz")
        if part == "train" and args.number is not None:
            packed = take(packed, np.arange(min(args.number, len(packed["n_atoms"]))))
        write(args.output / f"{part}.extxyz", unpack(packed), format="extxyz")
        print(f"{part}: {len(packed['n_atoms'])} frames", flush=True)


if __name__ == "__main__":
    main()
