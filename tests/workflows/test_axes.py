"""Standard axes: the same for every orientation and every cell of a crystal, and those of the standard."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import make_supercell
from pymatgen.analysis.elasticity import ElasticTensor
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.spatial.transform import Rotation

from ase_andersonn.workflows._axes import standard_axes

CRYSTALS = {
    "cubic": ("Fm-3m", Lattice.cubic(4.1)),
    "tetragonal": ("I4/m", Lattice.tetragonal(3.9, 5.2)),
    "tetragonal, flat": ("P4/mmm", Lattice.tetragonal(5.2, 3.9)),
    "orthorhombic": ("Cmcm", Lattice.orthorhombic(4.0, 6.1, 5.3)),
    "orthorhombic, a = b": ("Pmmm", Lattice.orthorhombic(4.0, 4.0, 5.3)),
    "hexagonal": ("P6_3/mmc", Lattice.hexagonal(3.2, 5.1)),
    "trigonal": ("R-3m", Lattice.hexagonal(4.3, 11.0)),
    "monoclinic": ("C2/m", Lattice.monoclinic(6.1, 4.2, 5.0, 107.0)),
    "triclinic": ("P-1", Lattice.from_parameters(4.0, 5.0, 6.1, 71.0, 77.0, 81.0)),
}


def crystal(name: str) -> Structure:
    group, lattice = CRYSTALS[name]
    return Structure.from_spacegroup(group, lattice, ["Na", "Cl"], [[0, 0, 0], [0.13, 0.31, 0.22]])


def turned(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    made = atoms.copy()
    made.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
    return made


def tensor_of(structure: Structure) -> ElasticTensor:
    """Any tensor with the crystal's symmetry."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 6))
    return ElasticTensor.from_voigt(100 * (matrix + matrix.T)).fit_to_structure(structure)


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_tensor_does_not_depend_on_orientation_and_cell(name: str) -> None:
    structure = crystal(name)
    tensor, atoms = tensor_of(structure), AseAtomsAdaptor.get_atoms(structure)
    axes, words = standard_axes(atoms)
    assert words.startswith(name.partition(",")[0])
    expected = tensor.rotate(axes).voigt
    small = AseAtomsAdaptor.get_atoms(structure.get_primitive_structure())  # in the same axes
    for cell in (atoms, small, make_supercell(atoms, [[1, 0, 0], [1, 1, 0], [0, 1, 2]])):
        turn = Rotation.random(random_state=3).as_matrix()
        found, _ = standard_axes(turned(cell, turn))
        np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(tensor.rotate(turn).rotate(found).voigt, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("tetragonal", (3.9, 3.9, 5.2)),
        ("tetragonal, flat", (5.2, 5.2, 3.9)),
        ("orthorhombic", (5.3, 6.1, 4.0)),
    ],
)
def test_axes_of_the_standard(name: str, lengths: tuple[float, ...]) -> None:
    """c is z, also of a flat tetragonal cell; c < a < b in an orthorhombic one."""
    cell = crystal(name).lattice.matrix
    turn = Rotation.random(random_state=5).as_matrix()
    axes, _ = standard_axes(turned(AseAtomsAdaptor.get_atoms(crystal(name)), turn))
    found = np.abs(cell @ turn.T @ axes.T)
    np.testing.assert_allclose(found.max(0), lengths, atol=1e-6)


def test_monoclinic_and_hexagonal_axes() -> None:
    axes, _ = standard_axes(AseAtomsAdaptor.get_atoms(crystal("monoclinic")))
    a, b, c = crystal("monoclinic").lattice.matrix
    assert abs(axes[1] @ b) == pytest.approx(4.2)
    assert abs(axes[2] @ c) == pytest.approx(5.0)
    axes, _ = standard_axes(AseAtomsAdaptor.get_atoms(crystal("hexagonal")))
    assert abs(axes[2] @ [0, 0, 1]) == pytest.approx(1.0)
    assert a @ axes[1] == pytest.approx(0.0, abs=1e-9)


def test_no_symmetry_found() -> None:
    atoms = Atoms("Cu2", [(0, 0, 0), (0, 0, 1e-9)], cell=[3, 3, 3], pbc=True)
    axes, words = standard_axes(atoms)
    np.testing.assert_array_equal(axes, np.eye(3))
    assert "own axes" in words
