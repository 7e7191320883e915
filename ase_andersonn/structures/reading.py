"""Structures from objects of other projects, files and SMILES."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from .convert import to_atoms
from .files import structures_in
from .metadata import check_order
from .paths import molecule_of


def structure_from(source: Any) -> Atoms:
    """Convert a source of one structure to `ase.Atoms`.

    Args:
        source: an object for `convert.to_atoms`; the path of a file (CIF, POSCAR, XYZ, SDF, ...), of which the last
            structure is used; a SMILES, if RDKit is installed and there is no file of this name; or an exception from
            reading a structure, which is raised.

    Raises:
        FileNotFoundError: for a string that is neither a file nor a SMILES.
        ValueError: for a file that cannot be read, and for sites with mixed or partial occupancy.
        TypeError: for anything else.
    """
    if isinstance(source, Exception):
        raise source
    if isinstance(source, Path) or (isinstance(source, str) and os.path.isfile(source)):
        return read_structure(Path(source))
    if isinstance(source, str):
        return from_smiles(source)
    atoms = to_atoms(source)
    check_order(atoms)
    return atoms


def read_structure(path: Path) -> Atoms:
    """Last structure of a file, with a warning if there are others.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if any part of it cannot be read, or the structure is disordered.
    """
    count, atoms = 0, Atoms()
    for _, found in structures_in(path):
        if isinstance(found, Exception):
            raise found
        count, atoms = count + 1, found
    if count > 1:
        warnings.warn(
            f"{path} has {count} structures, of which the last is used; for all of them give the list of "
            'ase.io.read(path, ":").',
            stacklevel=2,
        )
    check_order(atoms)
    return atoms


def from_smiles(smiles: str) -> Atoms:
    """Molecule of a SMILES in one conformer: ETKDGv3, relaxed by MMFF94s if it has the parameters.

    Raises:
        FileNotFoundError: if the string is no SMILES, or RDKit is not installed to read it.
        ValueError: if no conformer is found.
    """
    molecule = molecule_of(smiles)
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(molecule)
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = 42
    if AllChem.EmbedMolecule(molecule, parameters) != 0:
        raise ValueError(f"RDKit found no conformer of {smiles!r}.")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule, mmffVariant="MMFF94s")
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    atoms = Atoms(numbers, np.asarray(molecule.GetConformer().GetPositions()))
    if charge := Chem.GetFormalCharge(molecule):
        atoms.info["charge"] = charge
    return atoms
