"""Crystals of K, Rb and Cs with the labels of a teacher that sees far enough.

python make.py label alkali --teacher nequix.calculator:NequixCalculator,model_path=nequix-oam-1.nqx,use_kernel=0 \\
    --species K Rb Cs --seed 31 --elements 80 --dimers 0 --alloys 0 --molecules 0
python alkali.py set/train.npz alkali better/train.npz

TensorNet's cutoff is 5 Å, and nearest neighbours in these crystals are at 4.6, 4.9 and 5.3 Å: its bcc cesium has the
energy of free atoms. Of the set, structures of these elements alone are left out where an atom has a neighbour
nearer than `FREE`; those of the other teacher are added, twice, where every atom has one nearer than `WITHIN`, as its
own cutoff is 6 Å.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from make import describe, read_all
from packed import Packed, join, shuffled, take, write

FREE = 5.9
"""Å: farther apart, the atoms are free for TensorNet, as they should nearly be."""
WITHIN = {19: 5.0, 37: 5.25, 55: 5.6}
"""Å, by atomic number."""
TIMES = 2


def nearest(atoms: Atoms) -> np.ndarray:
    """Distance of each atom's nearest neighbour, Å; infinite beyond 7.5 Å."""
    center, distance = neighbor_list("id", atoms, 7.5)
    found = np.full(len(atoms), np.inf)
    np.minimum.at(found, center, distance)
    return found


def crystals(packed: Packed) -> list[Atoms]:
    """The structures as they are packed."""
    ends = np.cumsum(packed["n_atoms"].astype(int))
    parts = zip(ends - packed["n_atoms"], ends, packed["cell"], strict=True)
    numbers, positions = packed["numbers"], packed["positions"]
    return [Atoms(numbers[a:b], positions[a:b], cell=cell, pbc=True) for a, b, cell in parts]


def kept(atoms: Atoms) -> bool:
    """Whether a structure of the set stays."""
    return not set(atoms.numbers.tolist()) <= set(WITHIN) or bool((nearest(atoms) >= FREE).all())


def added(atoms: Atoms) -> bool:
    """Whether a structure of the other teacher is taken."""
    return bool((nearest(atoms) < np.array([WITHIN.get(int(z), 0.0) for z in atoms.numbers])).all())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the set with the better labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, help="packed structures")
    parser.add_argument("pieces", type=Path, help="folder of the other teacher's")
    parser.add_argument("output", type=Path)
    args = parser.parse_args(arguments)
    old, new = read_all([args.set]), read_all([args.pieces])
    old = take(old, np.flatnonzero([kept(atoms) for atoms in crystals(old)]))
    new = take(new, np.flatnonzero([added(atoms) for atoms in crystals(new)]))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found = shuffled(join([old, *([new] * TIMES)]))
    write(args.output, found)
    print(describe(found))


if __name__ == "__main__":
    main()
