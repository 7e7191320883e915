"""Small organic molecules labelled with GFN2-xTB (tblite): the length of the dipole moment, energy and forces.

python make.py --number 2000        (resumable: molecules that are done stay; about 0.05 s a molecule and core)

A molecule is a scaffold with two substituents, in one conformer that RDKit embeds (ETKDG) and relaxes with MMFF94 (UFF
where that has no parameters). The dipole moment is that of this geometry; forces are those of GFN2-xTB in the force
field's minimum, so they are not zero. Molecule k depends on k alone, so that a set can be made in parts and by
several processes, each with its own file.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Debye
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem
from tblite.ase import TBLite

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from resumable import collect

HERE = Path(__file__).resolve().parent
SCAFFOLDS = (
    # chains
    "C({0}){1}", "C({0})C{1}", "C({0})CC{1}", "CC({0}){1}", "C(/{0})=C/{1}", "C(/{0})=C\\{1}", "C({0})({1})=C",
    "C({0})#C{1}", "C(=O)({0}){1}", "C({0})C(=O){1}", "C({0})OC{1}", "C({0})NC{1}", "C({0})SC{1}", "C({0})S(=O)C{1}",
    # rings of three to six atoms
    "C1C({0})C1{1}", "C1OC1({0}){1}", "C1CC({0})C1{1}", "C1CCC({0})C1{1}", "C1CC({0})OC1{1}", "C1C({0})NCC1{1}",
    "O=C1C({0})CC1{1}", "C1CCC({0})CC1{1}",
    # aromatic rings
    "c1cc({0})c({1})cc1", "c1c({0})cc({1})cc1", "c1c({0})ccc({1})c1", "n1c({0})cccc1{1}", "n1cc({0})cc({1})c1",
    "n1c({0})ccc({1})c1", "n1c({0})ncc({1})c1", "[nH]1c({0})ccc1{1}", "o1c({0})ccc1{1}", "s1c({0})ccc1{1}",
    "[nH]1c({0})nc({1})c1", "o1c({0})nc({1})c1", "s1c({0})nc({1})c1", "[nH]1nc({0})cc1{1}",
)  # fmt: skip
"""SMILES with places for two substituents; both on carbon atoms."""
SUBSTITUENTS = (
    "[H]", "C", "C=C", "C#C", "C(F)(F)F", "CO", "O", "OC", "N", "N(C)C", "F", "Cl", "Br", "S", "C#N", "C=O", "C(=O)C",
    "C(=O)O", "C(=O)N", "[N+](=O)[O-]",
)  # fmt: skip
"""SMILES whose first atom binds to the scaffold."""
MOST = 9
"""Atoms other than hydrogen in a molecule."""


def composed() -> Iterator[str]:
    """Every scaffold with every pair of substituents, many of them the same molecule."""
    for scaffold in SCAFFOLDS:
        for first in SUBSTITUENTS:
            for second in SUBSTITUENTS:
                yield scaffold.format(first, second)


def molecules() -> list[str]:
    """SMILES of all molecules, each once, in an order that is drawn once and for all."""
    RDLogger.DisableLog("rdApp.warning")  # hydrogen atoms that stand alone in a SMILES
    found: dict[str, None] = {}
    for smiles in composed():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule.GetNumAtoms() <= MOST:
            found[Chem.MolToSmiles(molecule)] = None
    # the first that makes a molecule gives its place, so the order does not hang on how RDKit writes SMILES
    order = np.random.default_rng(2024).permutation(len(found))
    names = list(found)
    return [names[k] for k in order]


def embedded(smiles: str, seed: int) -> Chem.Mol:
    """The molecule with its hydrogen atoms: a conformer in a minimum of MMFF94, or of UFF where that has no parameters.

    Raises:
        ValueError: where RDKit finds no geometry or the force field no minimum.
    """
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    embedding = AllChem.ETKDGv3()
    embedding.randomSeed = seed
    if AllChem.EmbedMolecule(molecule, embedding) != 0:
        raise ValueError(f"{smiles}: no geometry found")
    known = AllChem.MMFFHasAllMoleculeParams(molecule)
    relax = AllChem.MMFFOptimizeMolecule if known else AllChem.UFFOptimizeMolecule
    if relax(molecule, maxIters=2000) != 0:
        raise ValueError(f"{smiles}: the force field's minimum was not found")
    return molecule


def conformer(smiles: str, seed: int) -> Atoms:
    """Species and positions of `embedded`."""
    molecule = embedded(smiles, seed)
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    return Atoms(numbers, molecule.GetConformer().GetPositions())


def label(atoms: Atoms) -> Atoms:
    """The molecule with its GFN2-xTB energy, forces and dipole vector (e Å), whose length in debye is `value`."""
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, max_iterations=500)
    results = {
        "energy": round(float(atoms.get_potential_energy()), 8),
        "forces": atoms.get_forces(),
        "dipole": atoms.get_dipole_moment().round(6),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["value"] = round(float(np.linalg.norm(results["dipole"])) / Debye, 5)
    return atoms


def make_molecule(smiles: str, number: int) -> Atoms:
    """The labelled molecule of that number."""
    atoms = label(conformer(smiles, seed=number))
    atoms.info["smiles"] = smiles
    return atoms


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the molecules asked for that the file does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000, help="of molecules (2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first molecule (0)")
    parser.add_argument("--output", type=Path, default=HERE / "molecules.extxyz")
    args = parser.parse_args(arguments)
    names = molecules()
    if not 0 <= args.first <= args.first + args.number <= len(names):
        parser.error(f"molecules are numbered from 0 to {len(names) - 1}")
    numbers = range(args.first, args.first + args.number)
    collect(args.output, numbers, "molecule", lambda number: make_molecule(names[number], number))


if __name__ == "__main__":
    main()
