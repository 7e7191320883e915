"""Organic molecules and pairs of them far from rest, labelled with GFN2-xTB (tblite): energy and forces.

python make.py --number 20000                        (resumable; 0.05 to 0.1 s a geometry and core)
python make.py --number 20000 --smiles molecules.smi (molecules of one's own, one SMILES a line)
python make.py --number 20000 --relaxed              (begins at rest in GFN2-xTB; several times as long)

| kind | |
|---|---|
| displaced | every atom moved at random, by up to 0.2 Å along each axis (standard deviation) |
| stretched | a bond outside rings at 0.8 to 2 times its length, what hangs on it moved along |
| twisted | every rotatable bond turned by a random angle |
| colliding | two molecules pressed together until their nearest atoms are 1 to 2 Å apart |
| pair | two molecules whose nearest atoms are 2 to 5 Å apart |

All kinds but the first have small displacements on top. Without `--relaxed` molecules begin in a force field's minimum,
which can be far from any that GFN2-xTB has: MMFF94 draws the bonds of CO2 out to 1.40 Å. Geometry k depends on k, the
list of molecules and `--relaxed` alone, so that a set can be made in parts and by several processes, each with its own
file.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.optimize import BFGS
from rdkit import Chem
from rdkit.Chem import rdMolTransforms
from scipy.spatial.transform import Rotation
from tblite.ase import TBLite

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from resumable import collect, whole_frames

HERE = Path(__file__).resolve().parent
ROTATABLE = Chem.MolFromSmarts("[!$([D1])&!$(*#*)]-&!@[!$([D1])&!$(*#*)]")
"""Single bonds outside rings, between atoms that have other neighbours."""
LARGEST_FORCE = 60.0
"""eV/Å; geometries with more are left out."""
NOISE = 0.05
"""Å, displacements on top of the other kinds."""
AT_REST, MOST_STEPS = 0.05, 500
"""Largest force, eV/Å, of a molecule at rest, and steps towards it."""
LONGEST = 1.3
"""A bond's length at most, in sums of the covalent radii."""


def dipoles() -> ModuleType:
    """The script beside this one, which knows the molecules and their conformers."""
    spec = importlib.util.spec_from_file_location("make_dipoles", HERE.parent / "dipoles" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_atoms(molecule: Chem.Mol) -> Atoms:
    """Species and positions of an embedded molecule."""
    return Atoms([atom.GetAtomicNum() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions())


def displaced(molecules: Sequence[Chem.Mol], rng: np.random.Generator) -> Atoms:
    """Every atom moved by the same standard deviation, drawn evenly in its logarithm."""
    atoms = as_atoms(molecules[0])
    atoms.positions += rng.normal(scale=np.exp(rng.uniform(np.log(0.02), np.log(0.2))), size=(len(atoms), 3))
    return atoms


def stretched(molecules: Sequence[Chem.Mol], rng: np.random.Generator) -> Atoms:
    """One bond outside rings longer or shorter.

    Raises:
        ValueError: if all bonds are in rings.
    """
    molecule = molecules[0]
    bonds = [bond for bond in molecule.GetBonds() if not bond.IsInRing()]
    if not bonds:
        raise ValueError("no bond outside rings")
    bond = bonds[rng.integers(len(bonds))]
    ends, conformer = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()), molecule.GetConformer()
    length = rdMolTransforms.GetBondLength(conformer, *ends)
    rdMolTransforms.SetBondLength(conformer, *ends, length * float(np.exp(rng.uniform(np.log(0.8), np.log(2.0)))))
    return as_atoms(molecule)


def twisted(molecules: Sequence[Chem.Mol], rng: np.random.Generator) -> Atoms:
    """Every rotatable bond at a random angle.

    Raises:
        ValueError: if there is no rotatable bond.
    """
    molecule = molecules[0]
    bonds = molecule.GetSubstructMatches(ROTATABLE)
    if not bonds:
        raise ValueError("no rotatable bond")
    for first, second in bonds:
        near, far = (
            next(n.GetIdx() for n in molecule.GetAtomWithIdx(here).GetNeighbors() if n.GetIdx() != there)
            for here, there in ((first, second), (second, first))
        )
        angle = float(rng.uniform(-180.0, 180.0))
        rdMolTransforms.SetDihedralDeg(molecule.GetConformer(), near, first, second, far, angle)
    return as_atoms(molecule)


def colliding(molecules: Sequence[Chem.Mol], rng: np.random.Generator) -> Atoms:
    """Two molecules pressed together."""
    return beside(*molecules, float(rng.uniform(1.0, 2.0)), rng)


def pair(molecules: Sequence[Chem.Mol], rng: np.random.Generator) -> Atoms:
    """Two molecules near each other."""
    return beside(*molecules, float(rng.uniform(2.0, 5.0)), rng)


Kind = Callable[[Sequence[Chem.Mol], np.random.Generator], Atoms]
KINDS: tuple[Kind, ...] = (displaced, stretched, twisted, colliding, pair)
TWO: tuple[Kind, ...] = (colliding, pair)
"""Kinds that take two molecules."""


def beside(molecule: Chem.Mol, other: Chem.Mol, distance: float, rng: np.random.Generator) -> Atoms:
    """Both in random orientations, the second moved in along a random direction to a nearest distance, Å."""
    first, second = as_atoms(molecule), as_atoms(other)
    for atoms in (first, second):
        atoms.positions = Rotation.random(random_state=rng).apply(atoms.positions - atoms.positions.mean(0))
    apart, shift = second.positions - first.positions[:, None], -np.inf
    while shift <= 0.0:  # a direction along which they do not meet
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        # Atom j of the second, moved by s along the direction, is at `distance` from atom i of the first:
        along = apart @ direction
        square = distance**2 - ((apart**2).sum(-1) - along**2)
        shift = float(np.where(square > 0.0, np.sqrt(np.maximum(square, 0.0)) - along, -np.inf).max())
    second.positions += shift * direction
    return first + second


def engine() -> TBLite:
    return TBLite(method="GFN2-xTB", verbosity=0, max_iterations=500)


def relaxed(molecule: Chem.Mol, fmax: float = AT_REST) -> Chem.Mol:
    """The molecule at rest in GFN2-xTB, near where it is; `fmax` is the largest force left, eV/Å.

    Bonds may have formed or moved; only broken ones are looked for.

    Raises:
        ValueError: where it does not come to rest in `MOST_STEPS`, or a bond is broken then.
    """
    atoms = as_atoms(molecule)
    atoms.calc = engine()
    with BFGS(atoms, logfile=None) as search:
        if not search.run(fmax=fmax, steps=MOST_STEPS):
            raise ValueError(f"not at rest after {MOST_STEPS} steps")
    for bond in molecule.GetBonds():
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        length, radii = atoms.get_distance(first, second), covalent_radii[atoms.numbers[[first, second]]].sum()
        if length > LONGEST * radii:
            raise ValueError(f"at rest {bond.GetBeginAtom().GetSymbol()} and {bond.GetEndAtom().GetSymbol()} are apart")
    found = Chem.Mol(molecule)
    for k, position in enumerate(atoms.positions):
        found.GetConformer().SetAtomPosition(k, position)
    return found


def label(atoms: Atoms) -> Atoms:
    """The geometry with its GFN2-xTB energy and forces.

    Raises:
        ValueError: where a force is larger than `LARGEST_FORCE`.
    """
    atoms.calc = engine()
    energy, forces = round(float(atoms.get_potential_energy()), 8), atoms.get_forces()
    largest = float(np.linalg.norm(forces, axis=1).max())
    if largest > LARGEST_FORCE:
        raise ValueError(f"a force of {largest:.0f} eV/Å")
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def make_geometry(number: int, names: Sequence[str], start: Callable[[str, int], Chem.Mol]) -> Atoms:
    """The labelled geometry of that number; its kind is the number's turn."""
    rng = np.random.default_rng([2026, number])
    kind = KINDS[number % len(KINDS)]
    first, second = (names[k] for k in rng.integers(len(names), size=2))
    atoms = kind([start(name, number) for name in ((first, second) if kind in TWO else (first,))], rng)
    if kind is not displaced:
        atoms.positions += rng.normal(scale=NOISE, size=(len(atoms), 3))
    atoms = label(atoms)
    atoms.info |= {"kind": kind.__name__, "smiles": f"{first}.{second}" if kind in TWO else first}
    return atoms


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the geometries asked for that the file does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=100, help="of geometries (100)")
    parser.add_argument("--first", type=int, default=0, help="number of the first geometry (0)")
    parser.add_argument("--smiles", type=Path, help="file of SMILES, one a line; else the molecules of ../dipoles")
    parser.add_argument("--relaxed", action="store_true", help="begin at rest in GFN2-xTB, not in a force field")
    parser.add_argument("--output", type=Path, default=HERE / "geometries.extxyz")
    args = parser.parse_args(arguments)
    script = dipoles()
    lines = () if args.smiles is None else args.smiles.read_text(encoding="utf-8").splitlines()
    names = script.molecules() if args.smiles is None else [line.split()[0] for line in lines if line.strip()]
    if not names:
        parser.error(f"{args.smiles} holds no SMILES")
    numbers = range(args.first, args.first + args.number)
    if any(atoms.info.get("relaxed", False) != args.relaxed for atoms in whole_frames(args.output)[:1]):
        said = "does not say that its frames began at rest" if args.relaxed else "says that its frames began at rest"
        parser.error(f"{args.output} {said}; go on {'without' if args.relaxed else 'with'} --relaxed")

    def start(name: str, number: int) -> Chem.Mol:
        molecule = script.embedded(name, number)
        return relaxed(molecule) if args.relaxed else molecule

    def geometry(number: int) -> Atoms:
        atoms = make_geometry(number, names, start)
        atoms.info |= {"relaxed": True} if args.relaxed else {}
        return atoms

    collect(args.output, numbers, "geometry", geometry)


if __name__ == "__main__":
    main()
