"""Structures of many elements labelled by a teacher: pieces in a folder, then training, validation and test files.

python make.py label pieces --teacher TensorNet-MatPES-PBE-v2025.1-PES --crystals mp20bt_train.npz wbm10k.npz \\
    --benchmarks elasticity.json.gz phonon.json.gz --worker 0 --of 2 --seconds 3600
python make.py join set pieces other-pieces older/train.npz --benchmarks elasticity.json.gz phonon.json.gz

`label` can be killed at any time and goes on where it was, with any number of workers: piece k is made of the k-th
hundred bases of a random order, and depends on nothing else. `--rounds 2` visits every base twice. `join` writes
`train.npz`, `valid.npz` and `test.npz` in random order, by the formula of each structure.
"""

import argparse
import hashlib
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from packed import Packed, formulas, join, pack, read, shuffled, take, write
from sampling import Frame, Walker, drawn, usable, walker, walks
from sources import ELEMENTS, Base, benchmark_formulas, crystals, fits, prototypes
from split import PARTS, Part, formula, part_of
from teacher import Labeller, identity, load

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pieces import in_pieces, keep_settings

PIECE = 100
"""Bases of a piece; about 500 structures, half a minute of a TensorNet on a core."""


@dataclass(frozen=True)
class Plan:
    """What is drawn: the bases in their order, species, formulas left out, parts, and the seed."""

    bases: Sequence[Base]
    species: Collection[int]
    forbidden: Collection[str]
    parts: Sequence[Part] = PARTS
    seed: int = 11
    rounds: int = 1

    @property
    def n_pieces(self) -> int:
        return math.ceil(len(self.bases) / PIECE) * self.rounds

    def walkers(self, piece: int) -> list[Walker]:
        """The starts of a piece's walks, each with random numbers of its own."""
        turn, block = divmod(piece, math.ceil(len(self.bases) / PIECE))
        found = []
        for k in range(block * PIECE, min((block + 1) * PIECE, len(self.bases))):
            rng = np.random.default_rng([self.seed, turn, k])
            for start in drawn(self.bases[k], sorted(self.species), rng):
                name = formula(start.atoms)
                if usable(start, self.species) and name not in self.forbidden and part_of(name) in self.parts:
                    found.append(walker(start, rng.spawn(1)[0]))
        return found

    def settings(self) -> dict[str, Any]:
        """What a folder's pieces must have in common."""
        names = "\n".join(f"{base.tag} {base.name}" for base in self.bases)
        forbidden = "\n".join(sorted(self.forbidden))
        return {
            "bases": len(self.bases), "of": digest(names), "forbidden": digest(forbidden), "seed": self.seed,
            "piece": PIECE, "species": sorted(self.species), "parts": list(self.parts),
        }  # fmt: skip


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labelled(frame: Frame, **more: float) -> Atoms:
    """Atoms with the frame's label, and in `info` its tag and step."""
    atoms = frame.atoms
    energy, forces, stress = frame.label
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    atoms.info = {"tag": frame.tag, "step": frame.step, **more}
    return atoms


def make_piece(plan: Plan, teacher: Labeller, piece: int, path: Path) -> str:
    """Label the structures of a piece.

    Raises:
        RuntimeError: where the teacher has no sound label for any of them.
    """
    walkers = plan.walkers(piece)
    frames = walks(walkers, teacher, plan.species)
    if walkers and not frames:
        raise RuntimeError(f"none of {len(walkers)} structures got a sound label; look at the teacher.")
    write(path, pack([labelled(frame) for frame in frames]))
    return f"{len(frames)} structures of {len(walkers)} starts, {sum(len(frame.atoms) for frame in frames)} atoms"


def add_sources(parser: argparse.ArgumentParser) -> None:
    """The options that say what is drawn, and which share of it this process makes."""
    add = parser.add_argument
    add("folder", type=Path, help="for the pieces")
    add("--teacher", required=True, help="folder of a MatGL potential, file, ASE's name, or module:Class,key=value")
    add("--crystals", nargs="*", default=[], metavar="FILE[:N]", help="packed .npz or MatCalc's .json.gz; N at random")
    add("--benchmarks", nargs="*", type=Path, default=[], help="MatCalc's files: a quarter of their formulas stays out")
    add("--species", nargs="*", help="element symbols (H to Bi, Ac to Pu)")
    add("--elements", type=int, default=16, help="visits to each element in lattices (16)")
    add("--dimers", type=int, default=6, help="to each element in dimers (6)")
    add("--alloys", type=int, default=3000, help="random alloys in all (3000)")
    add("--molecules", type=int, default=3, help="visits to each small molecule (3)")
    add("--seed", type=int, default=11)
    add("--rounds", type=int, default=1, help="visits to every base (1)")
    add("--worker", type=int, default=0, help="number of this process (0)")
    add("--of", type=int, default=1, help="of so many (1)")
    add("--seconds", type=float, default=math.inf, help="begin no piece after")


def plan_of(args: argparse.Namespace, parts: Sequence[Part] = PARTS) -> Plan:
    """The plan that the options ask for.

    Raises:
        ValueError: for an unknown element, and where nothing is left to draw.
    """
    species = ELEMENTS if args.species is None else {atomic_numbers.get(symbol, 0) for symbol in args.species}
    if not species or not species <= ELEMENTS:
        raise ValueError(f"--species {args.species}: give symbols of H to Bi or Ac to Pu.")
    if not 0 <= args.worker < args.of:
        raise ValueError(f"--worker {args.worker} --of {args.of}: workers are numbered from 0.")
    forbidden = benchmark_formulas(args.benchmarks)
    bases: list[Base] = []
    for text in args.crystals:
        name, _, number = text.partition(":")
        found = crystals(Path(name))
        fitting = [base for base in found if fits(base, species, forbidden)]
        bases += fitting[: int(number) if number else None]
        print(f"{name}: {len(found)} crystals, {len(fitting)} fit", flush=True)
    counts = {"elements": args.elements, "dimers": args.dimers, "alloys": args.alloys, "molecules": args.molecules}
    bases += prototypes(species, **counts)
    if not bases:
        raise ValueError("no base structures; give --crystals, or --elements, --dimers, --alloys, --molecules above 0.")
    order = np.random.default_rng(3).permutation(len(bases))
    return Plan([bases[k] for k in order], species, forbidden, parts, args.seed, args.rounds)


def label_pieces(args: argparse.Namespace, plan: Plan, make: Callable[[int, Path], str], **settings: object) -> None:
    """Make this process's share of the pieces that the folder lacks."""
    keep_settings(args.folder, plan.settings() | {"teacher": identity(args.teacher)} | settings)
    in_pieces(args.folder, range(args.worker, plan.n_pieces, args.of), make, args.seconds)


def label(args: argparse.Namespace) -> None:
    plan = plan_of(args)
    teacher = load(args.teacher)
    label_pieces(args, plan, lambda piece, path: make_piece(plan, teacher, piece, path))


def read_all(paths: Sequence[Path]) -> Packed:
    """All structures of packed files and of folders of them.

    Raises:
        ValueError: for a folder without any.
    """
    files = []
    for path in paths:
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} holds no .npz file.")
        files += inside
    return join(map(read, files))


def join_pieces(args: argparse.Namespace) -> None:
    """Write the parts, without the formulas that are held out."""
    packed, forbidden = read_all(args.pieces), benchmark_formulas(args.benchmarks)
    names = formulas(packed)
    parts = np.array(["out" if name in forbidden else part_of(name) for name in names], dtype="U5")
    args.folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        chosen = shuffled(take(packed, np.flatnonzero(parts == part)))
        write(args.folder / f"{part}.npz", chosen)
        print(f"{part}: {describe(chosen)}")
    if (parts == "out").any():
        print(f"left out, held out for the benchmarks: {(parts == 'out').sum()} structures")


def describe(packed: Packed) -> str:
    """Numbers of structures, atoms, elements, and structures of each tag."""
    tags = ", ".join(f"{tag} {number}" for tag, number in sorted(Counter(packed["tag"].tolist()).items()))
    n, n_atoms, n_elements = len(packed["n_atoms"]), len(packed["numbers"]), len(np.unique(packed["numbers"]))
    size = float(np.abs(packed["forces"]).mean()) if n_atoms else 0.0
    return f"{n} structures, {n_atoms} atoms, {n_elements} elements, mean |F| {size:.2f} eV/Å; {tags}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Label pieces, or join them to a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    of_label = commands.add_parser("label", help="make the pieces that a folder lacks")
    add_sources(of_label)
    of_label.set_defaults(run=label)
    of_join = commands.add_parser("join", help="pieces and packed files to train.npz, valid.npz, test.npz")
    of_join.add_argument("folder", type=Path, help="for the parts")
    of_join.add_argument("pieces", nargs="+", type=Path, help="packed files, or folders of them")
    of_join.add_argument("--benchmarks", nargs="*", type=Path, default=[], help="as for label")
    of_join.set_defaults(run=join_pieces)
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
