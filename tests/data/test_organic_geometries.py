"""Generation of organic geometries: distances, relaxation, labels, reproducibility."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from ase.units import Debye
from data_scripts import DATA, MOLECULES, load, missing, run


@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_molecules_are_put_at_the_distance_asked_for() -> None:
    from scipy.spatial.distance import cdist

    make = load(DATA / "organic" / "make.py")
    embedded = make.dipoles().embedded
    rng = np.random.default_rng(0)
    for distance in (1.0, 1.7, 3.0, 5.0):
        both = make.beside(embedded("CCO", 1), embedded("c1ccccc1", 2), distance, rng)
        assert cdist(both.positions[:9], both.positions[9:]).min() == pytest.approx(distance, abs=1e-6)


@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
@pytest.mark.parametrize(("smiles", "length"), [("[H][H]", 0.74), ("[C-]#[O+]", 1.13), ("Cl", 1.27), ("C", 1.09)])
def test_molecules_that_mmff94_has_no_parameters_for_are_embedded_too(smiles: str, length: float) -> None:
    """All but methane; lengths of experiment."""
    atoms = load(DATA / "dipoles" / "make.py").conformer(smiles, 0)
    assert atoms.get_distance(0, 1) == pytest.approx(length, abs=0.15)


@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
@pytest.mark.parametrize(("smiles", "length"), [("O=C=O", 1.162), ("N#N", 1.098), ("O=S=O", 1.432)])
def test_molecules_begin_relaxed_where_that_is_asked_for(smiles: str, length: float) -> None:
    """The force field draws these bonds out by 0.2 Å and more; lengths of experiment, Å."""
    make = load(DATA / "organic" / "make.py")
    molecule = make.dipoles().embedded(smiles, 0)
    atoms = make.label(make.as_atoms(make.relaxed(molecule)))
    assert atoms.get_distance(0, 1) == pytest.approx(length, abs=0.03)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < make.AT_REST + 1e-6
    assert make.as_atoms(molecule).get_distance(0, 1) > length + 0.2


@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_a_molecule_that_relaxes_to_pieces_is_left_out() -> None:
    make = load(DATA / "organic" / "make.py")
    with pytest.raises(ValueError, match="at rest Cl and P are apart"):
        make.relaxed(make.dipoles().embedded("ClP(Cl)(Cl)(Cl)Cl", 0))


@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_a_file_holds_geometries_of_one_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = load(DATA / "organic" / "make.py")
    (tmp_path / "own.smi").write_text("O\n")
    begun = ["--smiles", str(tmp_path / "own.smi"), "--number", "1", "--output", str(tmp_path / "a.extxyz")]
    make.main([*begun, "--relaxed"])
    assert read(tmp_path / "a.extxyz").info["relaxed"]
    before = (tmp_path / "a.extxyz").read_bytes()
    with pytest.raises(SystemExit):
        make.main([*begun, "--first", "1"])
    assert "says that its frames began at rest; go on with --relaxed" in capsys.readouterr().err
    assert (tmp_path / "a.extxyz").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_geometries_depend_on_their_number_and_the_molecules_alone(tmp_path: Path) -> None:
    script = DATA / "organic" / "make.py"
    (tmp_path / "own.smi").write_text("CCO\nCP(C)C\nOCC(F)CBr\n")
    given = ("--smiles", tmp_path / "own.smi")
    assert "5 added, 0 left out" in run(script, *given, "--number", 5, "--output", tmp_path / "a.extxyz")
    run(script, *given, "--first", 3, "--number", 2, "--output", tmp_path / "b.extxyz")
    assert (tmp_path / "a.extxyz").read_text().endswith((tmp_path / "b.extxyz").read_text())
    kinds = [atoms.info["kind"] for atoms in read(tmp_path / "a.extxyz", ":")]
    assert kinds == ["displaced", "stretched", "twisted", "colliding", "pair"]


@pytest.mark.skipif(missing("tblite"), reason="tblite is not installed")
def test_labels_of_molecules_are_those_of_the_engine() -> None:
    from tblite.ase import TBLite

    for atoms in read(MOLECULES, ":3"):
        again = Atoms(atoms)
        again.calc = TBLite(method="GFN2-xTB", verbosity=0)
        assert np.linalg.norm(again.get_dipole_moment()) / Debye == pytest.approx(atoms.info["value"], abs=1e-3)
        assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-3)
