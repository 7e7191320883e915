"""Energies, forces and stresses of the packaged potentials, by which a change of the code is told from one of a model.

python tests/snapshots/snapshot.py            # after a deliberate change of weights alone
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import bulk, graphene, molecule

from ase_andersonn import AndersoNN

FILE = Path(__file__).parent / "potentials.json"
BULK = {"Li": ("bcc", 3.44), "Si": ("diamond", 5.47), "Ni": ("fcc", 3.52), "Cu": ("fcc", 3.63), "Mo": ("bcc", 3.16)}
MOLECULES = ("H2O", "CH3CH2OH", "C6H6", "CH3Cl", "H2CO", "SO2", "PH3", "CF4")


def structures(name: str) -> Iterator[tuple[str, Atoms]]:
    """Rattled and strained structures of a packaged model's kind, made of nothing but numbers that stand here."""
    if name == "organic":
        for k, formula in enumerate(MOLECULES):
            yield formula, _displaced(molecule(formula), 0.05, k)
    elif name == "graphene":
        sheet = graphene(size=(3, 2, 1), vacuum=6.0)
        sheet.pbc = (True, True, False)
        yield "sheet", _displaced(sheet, 0.05, 0)
        del sheet[0]
        yield "vacancy", _displaced(sheet, 0.03, 1)
    else:
        for k, (symbol, (lattice, a)) in enumerate(BULK.items()):
            atoms = bulk(symbol, lattice, a=a, cubic=True) * (2, 1, 1)
            atoms.set_cell(atoms.cell.array * [[1.02, 1.0, 0.99]], scale_atoms=True)
            yield symbol, _displaced(atoms, 0.06, k)


def _displaced(atoms: Atoms, size: float, seed: int) -> Atoms:
    """Displacements from an integer recurrence, which no version of a random generator changes."""
    state, moves = 12345 + 7919 * seed, []
    for _ in range(3 * len(atoms)):
        state = (1103515245 * state + 12345) % 2**31
        moves.append(size * (2.0 * state / 2**31 - 1.0))
    atoms.positions += [[moves[3 * i + k] for k in range(3)] for i in range(len(atoms))]
    return atoms


def answers(name: str) -> dict[str, Any]:
    """Energy (eV), forces (eV/Å) and, in crystals, stress (eV/Å³) of each structure, float64, fully converged."""
    calc = AndersoNN(name, dtype="float64", tol=1e-13, compile=False, warm_start=False)
    found = {}
    for label, atoms in structures(name):
        names = ("energy", "forces", "stress") if atoms.pbc.all() else ("energy", "forces")
        found[label] = {key: _plain(calc.get_property(key, atoms)) for key in names}
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, float) else value.tolist()


if __name__ == "__main__":
    names = ("mlearn-pbe", "mlearn-pbe-large", "graphene", "organic")
    FILE.write_text(json.dumps({name: answers(name) for name in names}, indent=0) + "\n", encoding="utf-8")
