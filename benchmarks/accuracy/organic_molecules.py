"""Molecules of the organic benchmark and their GFN2-xTB labels."""

from __future__ import annotations

from rdkit import Chem

from benchmarks._common import REPOSITORY, script

MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "alanine dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "nicotine": "CN1CCC[C@H]1c1cccnc1",
    "sulfanilamide": "Nc1ccc(cc1)S(N)(=O)=O",
    "methionine": "CSCC[C@H](N)C(=O)O",
    "dimethyl methylphosphonate": "CP(=O)(OC)OC",
    "bromophenylethanol": "OCCc1ccc(Br)cc1",
    "enflurane": "FC(F)OC(F)(F)C(F)Cl",
}
RECIPE = REPOSITORY / "data" / "recipes" / "organic"
MAKE = script("data/organic/make.py")
"""Draws the geometries of training."""
EMBEDDED = MAKE.dipoles().embedded


def relaxed_molecule(smiles: str) -> Chem.Mol:
    """The molecule in a conformer of RDKit, relaxed with GFN2-xTB."""
    return MAKE.relaxed(EMBEDDED(smiles, 0), fmax=0.01)
