"""Elastic constants: derivatives of the energy, symmetry, bounds."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.cell import Cell
from ase.stress import voigt_6_to_full_3x3_strain
from ase.units import GPa
from batched import BatchedEMT
from tight import tight

from ase_andersonn.workflows.elastic import elastic_constants
from ase_andersonn.workflows.eos import equation_of_state
from ase_andersonn.workflows.relax import relax


def alloy() -> Atoms:
    """Tetragonal layers whose atoms move under strain."""
    atoms = bulk("Cu", cubic=True, a=3.8)
    atoms.symbols[:2] = "Au"
    atoms.rattle(0.02, seed=0)
    return atoms


def test_second_derivatives_of_the_energy() -> None:
    calc = BatchedEMT()
    found = elastic_constants(alloy(), calc, fmax=1e-4)
    assert [4] * 24 in calc.batches
    h, rest = 0.004, found.atoms

    def energy(strain: list[float]) -> float:
        strained = rest.copy()
        strained.set_cell(rest.cell.array @ voigt_6_to_full_3x3_strain(strain), scale_atoms=True)
        return relax(strained, EMT(), cell="fixed", fmax=1e-4).energy

    for i, j in ((0, 0), (0, 1), (3, 3)):
        unit = np.eye(6) * h
        corners = [energy(s * unit[i] + t * unit[j]) * s * t for s in (1, -1) for t in (1, -1)]
        second = sum(corners) / (4 * h * h)
        assert found.tensor_in_own_axes[i, j] == pytest.approx(second / rest.cell.volume / GPa, abs=1.5)
    assert found.asymmetry < 1.0
    assert found.nonlinearity < 0.1
    assert np.abs(found.stress).max() < 1e-2


def test_copper(tmp_path: Path) -> None:
    found = elastic_constants(bulk("Cu", cubic=True), EMT())
    c = found.tensor
    np.testing.assert_array_equal(c, c.T)
    np.testing.assert_allclose(c[:3, 3:], 0, atol=1e-6)
    np.testing.assert_allclose([c[0, 0], c[0, 1], c[3, 3]], [c[2, 2], c[1, 2], c[5, 5]], atol=1e-4)
    assert found.bulk_modulus == pytest.approx((c[0, 0] + 2 * c[0, 1]) / 3)
    assert found.bulk_modulus == pytest.approx(equation_of_state(bulk("Cu"), EMT()).bulk_modulus, rel=0.01)
    assert found.shear_modulus_reuss < found.shear_modulus < found.shear_modulus_voigt
    assert found.stable
    assert 300 < found.debye_temperature < 400
    nine = 9 * found.bulk_modulus * found.shear_modulus
    assert found.youngs_modulus == pytest.approx(nine / (3 * found.bulk_modulus + found.shear_modulus))
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot(tmp_path / "elastic.png")
    assert (tmp_path / "elastic.png").stat().st_size


def primitive(a: float, axes: str) -> Atoms:
    """A primitive cell of fcc copper, oriented as CIF files have it (a along x, b in the plane xy), or turned."""
    atoms = bulk("Cu", a=a)
    if axes == "cif":
        atoms.set_cell(Cell.fromcellpar(atoms.cell.cellpar()), scale_atoms=True)
    else:
        atoms.rotate(40.0, (1, 2, 3), rotate_cell=True)
    return atoms


@pytest.mark.parametrize("axes", ["cif", "turned"])
def test_the_orientation_of_a_file_does_not_matter(axes: str) -> None:
    options = {"relax_cell": False, "relax_positions": False}
    cubic = elastic_constants(bulk("Cu", a=3.6, cubic=True), EMT(), **options)
    found = elastic_constants(primitive(3.6, axes), EMT(), **options)
    assert found.axes == cubic.axes == "cubic, x ∥ a, y ∥ b, z ∥ c"
    np.testing.assert_allclose(found.tensor, cubic.tensor, atol=0.2)  # strains along other directions
    assert abs(found.tensor_in_own_axes - cubic.tensor).max() > 10.0
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-12)
    for name in ("bulk_modulus_voigt", "bulk_modulus_reuss", "shear_modulus_voigt", "shear_modulus_reuss"):
        assert getattr(found, name) == pytest.approx(getattr(cubic, name), abs=0.1)
    np.testing.assert_allclose(_kelvin(found.tensor), _kelvin(found.tensor_in_own_axes), atol=1e-6)


def _kelvin(tensor: np.ndarray) -> np.ndarray:
    """The eigenvalues that do not depend on the axes: of Kelvin's matrix, shears with √2."""
    scale = np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    return np.linalg.eigvalsh(tensor * np.outer(scale, scale))


def test_layers_have_no_stiffness_across_the_vacuum() -> None:
    layer = fcc111("Cu", (1, 1, 1), vacuum=8.0)
    layer.pbc = True
    with pytest.raises(ValueError, match="no stiffness against some strains"):
        elastic_constants(layer, EMT(), relax_cell=False, relax_positions=False)


def test_pair_potentials_obey_cauchys_relation() -> None:
    """C12 = C44 in a crystal of central forces without stress, every atom a centre of inversion."""
    calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0, smooth=True)
    found = elastic_constants(bulk("Ar", a=5.25), calc, fmax=1e-5, relax_positions=False)
    assert found.tensor[0, 1] == pytest.approx(found.tensor[3, 3], rel=5e-3)


def test_unstable_crystals() -> None:
    atoms = bulk("Cu", "sc", a=2.4)  # simple cubic shears away
    found = elastic_constants(atoms, EMT(), relax_positions=False)
    assert not found.stable
    assert np.isnan(found.debye_temperature)


def test_silicon_with_a_packaged_model() -> None:
    found = elastic_constants(bulk("Si"), tight())  # in the axes of the cubic cell
    c = found.tensor
    for value, dft in ((c[0, 0], 156.0), (c[0, 1], 65.0), (c[3, 3], 76.0)):
        assert value == pytest.approx(dft, rel=0.2)
    assert found.asymmetry < 0.1


def test_arguments_without_a_meaning() -> None:
    with pytest.raises(ValueError, match="strain is 0"):
        elastic_constants(bulk("Cu"), EMT(), strain=0.0)
    with pytest.raises(ValueError, match="linear in small"):
        elastic_constants(bulk("Cu"), EMT(), strain=0.5)
    with pytest.raises(ValueError, match="three directions"):
        elastic_constants(molecule("CO"), EMT())
