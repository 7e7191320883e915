"""Structures of other projects, and the errors of structures that have no energy."""

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry import get_duplicate_atoms
from ase.spacegroup import crystal
from input_structures import STRUCTURES
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import IStructure, Lattice, Molecule, Structure

from ase_andersonn.structures import check_atoms, find_edges, graph_from_atoms, neighbor_edges, to_atoms
from ase_andersonn.structures.convert import check_lengths

CELL = [[3.0, 0.0, 0.0], [1.0, 3.0, 0.0], [0.0, 1.0, 4.0]]
FRACTIONS = [[0.0, 0.0, 0.0], [0.5, 0.5, 1.2]]


def test_atoms_are_returned_as_they_are() -> None:
    atoms = bulk("Cu")
    assert to_atoms(atoms) is atoms


@pytest.mark.parametrize("kind", [Structure, IStructure])
def test_pymatgen_structure(kind: type[IStructure]) -> None:
    structure = kind(Lattice(CELL), ["Na", "Cl"], FRACTIONS)
    atoms = to_atoms(structure)
    assert type(atoms) is Atoms
    assert atoms.get_chemical_symbols() == ["Na", "Cl"]
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell.array, CELL)
    np.testing.assert_allclose(atoms.positions, structure.cart_coords)


def test_pymatgen_molecule() -> None:
    positions = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.9, -0.3]]
    atoms = to_atoms(Molecule(["O", "H", "H"], positions))
    assert not atoms.pbc.any()
    assert atoms.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(atoms.positions, positions)


def test_pymatgen_mixed_occupation() -> None:
    with pytest.raises(ValueError, match="shared by several species"):
        to_atoms(Structure(Lattice.cubic(3.0), [{"Na": 0.5, "K": 0.5}], [[0.0, 0.0, 0.0]]))


def test_phonopy_atoms() -> None:
    given = PhonopyAtoms(symbols=["Fe", "O"], scaled_positions=FRACTIONS, cell=CELL, magnetic_moments=[2.0, 0.0])
    atoms = to_atoms(given)
    assert atoms.get_chemical_symbols() == ["Fe", "O"]
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell.array, CELL)
    np.testing.assert_allclose(atoms.positions, np.array(FRACTIONS) @ CELL)
    np.testing.assert_allclose(atoms.get_initial_magnetic_moments(), [2.0, 0.0])
    np.testing.assert_allclose(atoms.get_masses(), given.masses)


@pytest.mark.parametrize("thing", ["POSCAR", 3, None, {"positions": []}, Lattice(CELL)])
def test_anything_else(thing: object) -> None:
    with pytest.raises(TypeError, match=r"ase\.Atoms, a pymatgen Structure or Molecule, or PhonopyAtoms; .* was given"):
        to_atoms(thing)


def test_other_projects_are_imported_only_for_their_own_objects() -> None:
    code = (
        "import sys\nfrom ase.build import bulk\nfrom ase_andersonn.structures import graph_from_atoms, to_atoms\n"
        "graph_from_atoms(to_atoms(bulk('Cu')), 3.0)\n"
        "print([name for name in ('pymatgen', 'phonopy', 'torch_geometric', 'nvalchemiops') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", STRUCTURES)
def test_good_structures_pass(name: str) -> None:
    check_atoms(STRUCTURES[name])


def broken(**changes: object) -> Atoms:
    atoms = bulk("Si", cubic=True)
    for name, value in changes.items():
        setattr(atoms, name, value)
    return atoms


def moved(index: int, position: object) -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.positions[index] = position
    return atoms


BAD = {
    "empty": (Atoms(), "has no atoms"),
    "nan": (moved(3, [0.0, np.nan, 0.0]), "positions of atoms 3 are not finite"),
    "inf": (broken(positions=np.full((8, 3), np.inf)), "positions of atoms 0, 1, 2, 3, 4 and 3 more are not finite"),
    "nan cell": (broken(cell=np.diag([5.0, np.nan, 5.0])), "the cell is not finite"),
    "no cell": (broken(cell=np.zeros((3, 3))), "pbc is set along a and b and c, where the cell vector is zero"),
    "no third vector": (broken(cell=[5.0, 5.0, 0.0]), "pbc is set along c, where the cell vector is zero"),
    "flat cell": (broken(cell=[[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [5.0, 5.0, 0.0]]), "span no volume"),
    "parallel": (broken(cell=[[5.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 5.0]], pbc=[1, 1, 0]), "span no volume"),
    "one site": (moved(5, bulk("Si", cubic=True).positions[2]), r"atoms 2 and 5 are 0\.0e\+00 Å apart"),
    "image": (moved(5, bulk("Si", cubic=True).positions[2] + [5.43, 0.0, 5e-4]), r"atoms 2 and 5 are 5\.0e-04 Å apart"),
    "own image": (Atoms("H", cell=[3.0, 3.0, 5e-4], pbc=True), "atom 0 and its own periodic image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_structures_have_clear_errors(name: str) -> None:
    atoms, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        check_atoms(atoms)
    if name != "own image":  # at a real cutoff it has too many neighbours to make a list of
        with pytest.raises(ValueError, match=text):
            graph_from_atoms(atoms, 3.0)
        with pytest.raises(ValueError, match=text):
            find_edges(atoms, 3.0)


def test_an_error_in_a_batch_names_the_structure() -> None:
    for name in ("nan", "one site"):
        with pytest.raises(ValueError, match=f"structure 1 of 3: .*{BAD[name][1]}"):
            graph_from_atoms([molecule("H2O"), BAD[name][0], bulk("Cu")], 3.0)


def test_the_structure_is_not_changed() -> None:
    atoms = STRUCTURES["skewed"]
    before = atoms.copy()
    check_atoms(atoms)
    graph_from_atoms(atoms, 3.0)
    assert atoms == before


def too_close(atoms: Atoms) -> str:
    with pytest.raises(ValueError, match="apart") as caught:
        check_lengths(atoms.numbers, neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, 3.0))
    return str(caught.value)


@pytest.mark.parametrize("digits", [2, 3])
def test_copies_by_rounded_coordinates_are_no_wrong_unit(digits: int) -> None:
    """Symmetry takes an atom beside a special position to copies beside it."""
    third = round(1 / 3, digits)
    site, cell = (third, 2 * third, 0.25), [3.2, 3.2, 5.2, 90, 90, 120]
    magnesium = crystal("Mg", [site], spacegroup=194, cellpar=cell, symprec=1e-5, onduplicates="keep")
    twice = bulk("Cu") + Atoms("Cu", [[0.05, 0.0, 0.0]])
    for atoms in (magnesium, twice):
        text = too_close(atoms)
        assert "rounded (0.333 for 1/3)" in text
        assert "in Å" not in text
        cutoff = float(text.split("cutoff=")[1].split(",")[0])
        get_duplicate_atoms(atoms, cutoff=cutoff, delete=True)  # what is advised helps
        assert len(atoms) == (2 if atoms is magnesium else 1)


def test_other_atoms_that_are_too_close() -> None:
    silicon = bulk("Si", cubic=True)
    silicon.set_cell(0.1 * silicon.cell, scale_atoms=True)
    fractions = bulk("Si", cubic=True)
    fractions.positions = fractions.get_scaled_positions()
    ethane = molecule("C2H6")
    ethane.positions *= 0.1
    hydrogen = Atoms("H2", [[0, 0, 0], [0, 0, 0.12]])
    for atoms in (silicon, fractions, ethane, hydrogen):
        assert "Are the lengths in Å" in too_close(atoms)
    assert "Or is one atom there twice?" in too_close(hydrogen)
    shared = bulk("Cu").repeat(2)
    shared += Atoms("Ni", [shared.positions[3] + 0.3])
    assert "a site that two species share" in too_close(shared)
