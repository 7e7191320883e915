"""Scans of torsions and bonds of molecules, with energies of GFN2-xTB and of a potential."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from ase_andersonn import AndersoNN
from benchmarks.accuracy.organic_molecules import MAKE

ANGLES = np.arange(0.0, 360.0, 15.0)
FACTORS = np.linspace(0.85, 2.0, 24)
WITHIN = 2.0
"""eV above a torsion's lowest point up to which its points count."""


def torsions(molecule: Chem.Mol) -> Iterator[tuple[str, list[Atoms]]]:
    """The molecule with each rotatable bond turned, by the bond's name."""
    for first, second in molecule.GetSubstructMatches(MAKE.ROTATABLE):
        quadruple = (neighbor(molecule, first, second), first, second, neighbor(molecule, second, first))
        turned = Chem.Mol(molecule)
        start = rdMolTransforms.GetDihedralDeg(turned.GetConformer(), *quadruple)
        frames = []
        for angle in ANGLES:
            rdMolTransforms.SetDihedralDeg(turned.GetConformer(), *quadruple, float(start + angle))
            frames.append(MAKE.as_atoms(turned))
        yield name_of(molecule, first, second), frames


def stretches(molecule: Chem.Mol) -> Iterator[tuple[str, list[Atoms]]]:
    """The molecule first relaxed, then with a bond of two heavy atoms outside rings stretched, by the bond's name."""
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if bond.IsInRing() or 1 in (bond.GetBeginAtom().GetAtomicNum(), bond.GetEndAtom().GetAtomicNum()):
            continue
        drawn, frames = Chem.Mol(molecule), [MAKE.as_atoms(molecule)]
        length = rdMolTransforms.GetBondLength(drawn.GetConformer(), *ends)
        for factor in FACTORS:
            rdMolTransforms.SetBondLength(drawn.GetConformer(), *ends, float(factor * length))
            frames.append(MAKE.as_atoms(drawn))
        yield name_of(molecule, *ends), frames


def neighbor(molecule: Chem.Mol, here: int, there: int) -> int:
    return int(next(n.GetIdx() for n in molecule.GetAtomWithIdx(here).GetNeighbors() if n.GetIdx() != there))


def name_of(molecule: Chem.Mol, first: int, second: int) -> str:
    return "–".join(f"{molecule.GetAtomWithIdx(k).GetSymbol()}{k}" for k in (first, second))


def energies(frames: Sequence[Atoms], calc: AndersoNN) -> tuple[np.ndarray, np.ndarray]:
    """Of GFN2-xTB, not a number where it finds none, and of the model, eV."""
    reference = []
    for atoms in frames:
        labelled = atoms.copy()
        labelled.calc = MAKE.engine()
        try:
            reference.append(labelled.get_potential_energy())
        except CalculationFailed:
            reference.append(np.nan)
    ours = [result["energy"] for result in calc.evaluate(list(frames), forces=False)]
    return np.array(reference), np.array(ours)


def torsion_curve(frames: Sequence[Atoms], calc: AndersoNN) -> dict[str, list[float]]:
    reference, ours = energies(frames, calc)
    lowest = int(np.nanargmin(reference))
    return curve(ANGLES, reference - reference[lowest], ours - ours[lowest], reference - reference[lowest] <= WITHIN)


def bond_curve(frames: Sequence[Atoms], calc: AndersoNN) -> dict[str, list[float]]:
    reference, ours = energies(frames, calc)
    reference, ours = reference[1:] - reference[0], ours[1:] - ours[0]
    return curve(FACTORS, reference, ours, np.isfinite(reference))


def curve(x: np.ndarray, reference: np.ndarray, ours: np.ndarray, chosen: np.ndarray) -> dict[str, list[float]]:
    names = ("x", "xtb", "model")
    return {name: v[chosen].tolist() for name, v in zip(names, (x, reference, ours), strict=True)}


Scan = Callable[[Chem.Mol], Iterator[tuple[str, list[Atoms]]]]
Curve = Callable[[Sequence[Atoms], AndersoNN], dict[str, list[float]]]
SCANS: dict[str, tuple[Scan, Curve]] = {"torsions": (torsions, torsion_curve), "bonds": (stretches, bond_curve)}


def scanned(part: str, molecules: dict[str, Chem.Mol], calc: AndersoNN) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Curves by molecule and bond."""
    scan, curve_of = SCANS[part]
    return {name: {bond: curve_of(frames, calc) for bond, frames in scan(m)} for name, m in molecules.items()}


def errors_of(curves: dict[str, dict[str, dict[str, list[float]]]]) -> dict[str, dict[str, float]]:
    """By molecule and of all the number of bonds and of points, and the mean and the largest error, eV."""
    errors = {name: [np.subtract(c["model"], c["xtb"]) for c in own.values()] for name, own in curves.items()}
    errors["all"] = [one for own in errors.values() for one in own]
    found = {}
    for name, own in errors.items():
        if own:
            size = np.abs(np.concatenate(own))
            numbers = {"bonds": len(own), "points": len(size)}
            found[name] = {**numbers, "mean": float(size.mean()), "largest": float(size.max())}
    return found
