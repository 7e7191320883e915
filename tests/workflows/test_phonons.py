"""Phonons: analytic crystals, sum rules, sound, thermal limits, the correction of ionic crystals."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, make_supercell, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from batched import BatchedEMT
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from tight import tight

from ase_andersonn.workflows.born_charges import is_ionic
from ase_andersonn.workflows.elastic import elastic_constants
from ase_andersonn.workflows.phonons import Phonons, phonons
from ase_andersonn.workflows.supercells import supercell_matrix

pytest.importorskip("seekpath")
SIGMA, EPSILON = 3.4, 0.0104
LENGTH = 2 ** (1 / 6) * SIGMA
FORCE_CONSTANT = 72 * EPSILON / LENGTH**2
"""eV/Å², of a pair at its minimum."""
THZ = np.sqrt(units._e / units._amu) * 1e10 / 1e12 / (2 * np.pi)
"""THz of sqrt(eV/(Å² u))."""


def springs() -> LennardJones:
    """Pairs of nearest neighbours alone."""
    return LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=1.3 * LENGTH)


def at(found: Phonons, start: str, end: str) -> np.ndarray:
    """Frequencies at the end of a segment, THz."""
    return found.bands.frequencies[found.bands.labels.index((start, end))][-1]


@pytest.fixture(scope="module")
def copper() -> Phonons:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return phonons(bulk("Cu", cubic=True), EMT(), supercell=[2, 2, 2], mesh=60.0)


def test_a_crystal_of_springs() -> None:
    """fcc with central forces of nearest neighbours: ω² = 8k/m and 4k/m at X, 8k/m and 2k/m at L."""
    crystal = bulk("Ar", a=np.sqrt(2) * LENGTH)
    found = phonons(crystal, springs(), supercell=[4, 4, 4], relax_cell=False, displacement=1e-3, mesh=20.0, points=5)
    unit = THZ * np.sqrt(FORCE_CONSTANT / crystal.get_masses()[0])
    np.testing.assert_allclose(at(found, "Γ", "X"), unit * np.sqrt([4, 4, 8]), rtol=1e-4)
    np.testing.assert_allclose(at(found, "Γ", "L"), unit * np.sqrt([2, 2, 8]), rtol=1e-4)
    assert found.n_displacements == 1


def test_a_chain_of_atoms() -> None:
    """Chains far from each other: ω = 2 sqrt(k/m) |sin(qa/2)| along them, and no stiffness across."""
    chain = Atoms("Ar", cell=[LENGTH, 20.0, 20.0], pbc=True)
    found = phonons(chain, springs(), supercell=[6, 1, 1], relax_cell=False, displacement=1e-3, mesh=20.0)
    q = np.array([[x, 0.0, 0.0] for x in (0.1, 0.25, 0.5)])
    found.phonopy.run_qpoints(q / LENGTH @ found.phonopy.primitive.cell.T)
    expected = THZ * 2 * np.sqrt(FORCE_CONSTANT / chain.get_masses()[0]) * np.sin(np.pi * q[:, 0])
    np.testing.assert_allclose(found.phonopy.qpoints.frequencies[1:, 2], expected[1:], rtol=2e-3)
    np.testing.assert_allclose(found.phonopy.qpoints.frequencies[:, :2], 0.0, atol=1e-2)


def test_sum_rules_and_limits(copper: Phonons) -> None:
    assert copper.n_primitive == 1
    gamma = copper.bands.frequencies[0][0]
    np.testing.assert_allclose(gamma, 0.0, atol=1e-4)  # the acoustic sum rule
    assert copper.stable
    assert copper.imaginary_share == 0
    assert np.trapezoid(copper.dos, copper.dos_frequencies) == pytest.approx(3, rel=2e-2)
    assert copper.heat_capacity[-1] == pytest.approx(3 * units.kB * units.mol / units.J, rel=0.01)  # Dulong and Petit
    assert copper.heat_capacity[0] == copper.entropy[0] == 0
    slope = np.gradient(copper.free_energy * 1000, copper.temperatures)
    np.testing.assert_allclose(slope[1:-1], -copper.entropy[1:-1], atol=0.2)  # S = −dF/dT
    zero_point = np.trapezoid(copper.dos * copper.dos_frequencies, copper.dos_frequencies) * 0.5 * units._hplanck * 1e12
    assert copper.free_energy[0] == pytest.approx(zero_point * units.mol / 1000, rel=0.02)


def test_sound_is_elastic(copper: Phonons) -> None:
    """v = sqrt(C11/ρ) and sqrt(C44/ρ) along the cubic axis, from group velocities near Γ."""
    tensor = elastic_constants(bulk("Cu", cubic=True), EMT()).tensor
    density = copper.atoms.get_masses().sum() * units._amu / (copper.atoms.cell.volume * 1e-30)
    assert copper.bands.labels[0] == ("Γ", "X")
    velocities = 100 * np.linalg.norm(copper.bands.group_velocities[0][1], axis=1)  # m/s
    expected = np.sqrt(np.array([tensor[3, 3], tensor[3, 3], tensor[0, 0]]) * 1e9 / density)
    np.testing.assert_allclose(velocities, expected, rtol=0.05)


def test_every_cell_of_a_crystal_gives_the_same(copper: Phonons, tmp_path: Path) -> None:
    """The primitive cell in a supercell of the same shape, and in other axes, evaluated in one batch."""
    calc = BatchedEMT()
    primitive = bulk("Cu")
    to_cubic = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    primitive.rotate(40, (1, 2, 3), rotate_cell=True)
    found = phonons(primitive, calc, supercell=2 * to_cubic, mesh=60.0)
    assert len(make_supercell(primitive, found.supercell)) == 32
    assert calc.batches[-1] == [32, 32]
    np.testing.assert_allclose(at(found, "Γ", "X"), at(copper, "Γ", "X"), rtol=1e-3)
    np.testing.assert_allclose(found.free_energy, copper.free_energy, atol=0.02)
    data = found.to_dict()
    assert "phonopy" not in data
    json.dumps(data, allow_nan=False)
    found.plot(tmp_path / "phonons.png")
    assert (tmp_path / "phonons.png").stat().st_size


def test_charges_split_the_optical_modes() -> None:
    """ω_LO² − ω_TO² = q² / (ε₀ ε V μ) in a cubic crystal of two ions."""
    crystal = bulk("CsCl", "cesiumchloride", a=4.0)
    calc = LennardJones(sigma=3.1, epsilon=0.05, rc=6.0, smooth=True)
    charge, epsilon = 1.1, 2.5
    born = charge * np.stack([np.eye(3), -np.eye(3)])
    options = {"supercell": [2, 2, 2], "relax_cell": False, "mesh": 10.0, "points": 11}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imaginary modes
        plain = phonons(crystal, calc, **options)
        ionic = phonons(crystal, calc, born=born, dielectric=epsilon * np.eye(3), **options)
    before, after = (found.bands.frequencies[0][0] for found in (plain, ionic))
    masses = crystal.get_masses() * units._amu
    mu = masses.prod() / masses.sum()
    splitting = (
        (charge * units._e) ** 2 / (units._eps0 * epsilon * crystal.cell.volume * 1e-30 * mu) / (2e12 * np.pi) ** 2
    )
    difference = np.sort(np.sign(after) * after**2) - np.sort(np.sign(before) * before**2)
    assert difference.max() == pytest.approx(splitting, rel=1e-3)
    assert np.sort(difference)[-2] == pytest.approx(0.0, abs=1e-3 * splitting)


def test_charges_from_phonopys_file(tmp_path: Path) -> None:
    """The same as charges given; without them an ionic crystal is warned of."""
    crystal = bulk("CsCl", "cesiumchloride", a=4.0)
    calc = LennardJones(sigma=3.1, epsilon=0.05, rc=6.0, smooth=True)
    options = {"supercell": [2, 2, 2], "relax_cell": False, "mesh": 10.0, "points": 5}
    born = 1.1 * np.stack([np.eye(3), -np.eye(3)])
    lines = ["14.4", " ".join(map(str, (2.5 * np.eye(3)).ravel())), *(" ".join(map(str, z.ravel())) for z in born)]
    (tmp_path / "BORN").write_text("\n".join(lines) + "\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = phonons(crystal, calc, born=tmp_path / "BORN", **options)
    assert not any("is ionic" in str(warning.message) for warning in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = phonons(crystal, calc, born=born, dielectric=2.5 * np.eye(3), **options)
    for ours, theirs in zip(found.bands.frequencies, given.bands.frequencies, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    (tmp_path / "bad").write_text("14.4\n1 2\n")
    for name, words in (("bad", "BORN of phonopy"), ("nothing", "has to be a file BORN")):
        with pytest.raises(ValueError, match=words):
            phonons(crystal, calc, born=tmp_path / name, **options)


@pytest.mark.parametrize(("name", "ionic"), [("CsCl", True), ("GaAs", False), ("NiAl", False)])
def test_ionic_crystals(name: str, ionic: bool) -> None:
    assert is_ionic(bulk(name, "cesiumchloride", a=4.0)) is ionic


def test_an_ionic_crystal_without_charges_is_warned_of() -> None:
    calc = LennardJones(sigma=3.1, epsilon=0.05, rc=6.0, smooth=True)
    with pytest.warns(UserWarning, match="ClCs is ionic: .* LO and TO modes split"):
        phonons(bulk("CsCl", "cesiumchloride", a=4.0), calc, supercell=[2, 2, 2], relax_cell=False, mesh=9.0, points=5)


def test_imaginary_modes_are_reported() -> None:
    with pytest.warns(UserWarning, match="imaginary modes"):
        found = phonons(bulk("Cu", "sc", a=2.4), EMT(), supercell=[3, 3, 3], relax_cell=False, mesh=20.0, points=5)
    assert not found.stable
    assert found.lowest_frequency < -0.5
    assert found.imaginary_share > 0.05
    found.phonopy.run_qpoints([found.lowest_qpoint])
    assert found.phonopy.qpoints.frequencies.min() == pytest.approx(found.lowest_frequency, abs=1e-6)


def test_silicon_with_a_packaged_model() -> None:
    found = phonons(bulk("Si"), tight(), min_length=9.0, mesh=30.0, points=11)
    assert found.stable
    assert found.bands.frequencies[0][0].max() == pytest.approx(15.0, abs=1.5)  # the Raman mode, PBE


def test_supercells() -> None:
    atoms = bulk("Cu", cubic=True)
    np.testing.assert_array_equal(supercell_matrix(atoms, None, 10.0), np.diag([3, 3, 3]))
    np.testing.assert_array_equal(supercell_matrix(atoms, None, 3.61), np.eye(3))
    np.testing.assert_array_equal(supercell_matrix(bulk("Cu"), None, 10.0), np.diag([5, 5, 5]))
    rows = [[1, 1, 0], [0, 1, 0], [0, 0, 2]]
    np.testing.assert_array_equal(supercell_matrix(atoms, rows, 1.0).T, rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"supercell": [2, 2]}, "supercell"),
        ({"supercell": [0, 1, 1]}, "supercell"),
        ({"supercell": [1.5, 1, 1]}, "supercell"),
        ({"min_length": -1.0}, "min_length"),
        ({"displacement": 0.0}, "displacement"),
        ({"temperatures": [-1.0]}, "temperatures"),
        ({"temperatures": []}, "temperatures"),
        ({"points": 1}, "points"),
        ({"born": np.zeros((1, 3, 3))}, "together"),
        ({"born": np.zeros((2, 3, 3)), "dielectric": np.eye(3)}, "shape"),
    ],
)
def test_arguments_without_a_meaning(options: dict[str, object], words: str) -> None:
    calc = BatchedEMT()
    with pytest.raises(ValueError, match=words):
        phonons(bulk("Cu"), calc, **options)
    assert not calc.batches


def test_molecules_have_no_bands() -> None:
    with pytest.raises(ValueError, match="three directions"):
        phonons(molecule("CO"), EMT())


def test_frequencies_are_phonopys_own() -> None:
    """The same displacements evaluated one after another by a loop around phonopy, without a batch."""
    crystal = bulk("Cu", a=3.59)
    cell = PhonopyAtoms(numbers=crystal.numbers, cell=crystal.cell.array, scaled_positions=[[0.0, 0.0, 0.0]])
    plain = Phonopy(cell, supercell_matrix=np.diag([3, 3, 3]), primitive_matrix=np.eye(3))
    plain.generate_displacements(distance=0.01)
    frames = [Atoms(c.numbers, c.positions, cell=c.cell, pbc=True) for c in plain.supercells_with_displacements]
    plain.forces = np.array([EMT().get_property("forces", frame) for frame in frames])
    plain.produce_force_constants()
    plain.symmetrize_force_constants()
    qpoints = [[0.5, 0.0, 0.5], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]
    plain.run_qpoints(qpoints)
    found = phonons(crystal, BatchedEMT(), supercell=[3, 3, 3], relax_cell=False, mesh=5.0, points=3)
    found.phonopy.run_qpoints(qpoints)
    np.testing.assert_allclose(found.phonopy.qpoints.frequencies, plain.qpoints.frequencies, atol=1e-6)
