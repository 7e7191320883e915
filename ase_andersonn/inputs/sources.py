"""Structures from what users have: objects of other projects, files, SMILES."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from .convert import to_atoms

PARTIAL = 1e-3
"""An occupancy below 1 by more than this is a disordered site."""


def structure_from(source: Any) -> Atoms:
    """One structure as `ase.Atoms`.

    Args:
        source: what `convert.to_atoms` takes; the path of a file that `ase.io` reads (CIF, POSCAR, XYZ, SDF, ...), of
            which the last structure is meant; a string that names no file: a SMILES, where RDKit is installed; or the
            error that was met on the way to a structure, which is raised.

    Raises:
        FileNotFoundError: for a string that is neither a file nor a SMILES.
        ValueError: for a file that cannot be read, and for sites that several species share or that are partly empty.
        TypeError: for anything else.
    """
    if isinstance(source, Exception):
        raise source
    if isinstance(source, Path) or (isinstance(source, str) and Path(source).is_file()):
        return read_structure(Path(source))
    if isinstance(source, str):
        return from_smiles(source)
    return ordered(to_atoms(source))


def read_structure(path: Path) -> Atoms:
    """The last structure of a file.

    Raises:
        FileNotFoundError: without the file.
        ValueError: if it cannot be read, or is disordered.
    """
    form = "vasp" if "POSCAR" in path.name.upper() or "CONTCAR" in path.name.upper() else None
    try:
        atoms = read(path, format=form)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}, seen from {Path.cwd()}.") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ValueError(f"{path} cannot be read as a structure: {why}") from error
    assert isinstance(atoms, Atoms)
    return ordered(atoms)


def ordered(atoms: Atoms) -> Atoms:
    """The structure itself.

    Raises:
        ValueError: if its file gave a site several species, or one that is not always there.
    """
    sites = atoms.info.get("occupancy") or {}
    partial = [s for s in sites.values() if len(s) > 1 or any(abs(share - 1.0) > PARTIAL for share in s.values())]
    if partial:
        said = "; ".join(", ".join(f"{symbol} {share:g}" for symbol, share in site.items()) for site in partial[:3])
        raise ValueError(
            f"{len(partial)} kinds of sites are disordered ({said}); an answer needs one atom a site. "
            "Make the structure ordered first, for example with pymatgen's OrderDisorderedStructureTransformation."
        )
    return atoms


def from_smiles(smiles: str) -> Atoms:
    """The molecule of a SMILES in one conformer: ETKDGv3, then MMFF94s where it has the parameters.

    Raises:
        FileNotFoundError: if the string is no SMILES, or RDKit is not installed to read it.
        ValueError: if no conformer is found.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import AllChem
    except ImportError as error:
        raise FileNotFoundError(
            f"there is no file {smiles!r}, seen from {Path.cwd()}; to read it as a SMILES, install rdkit."
        ) from error
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise FileNotFoundError(f"{smiles!r} is neither a file, seen from {Path.cwd()}, nor a SMILES.")
    molecule = Chem.AddHs(molecule)
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = 42
    if AllChem.EmbedMolecule(molecule, parameters) != 0:
        raise ValueError(f"RDKit finds no conformer of {smiles!r}.")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule, mmffVariant="MMFF94s")
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    return Atoms(numbers, np.asarray(molecule.GetConformer().GetPositions()))
