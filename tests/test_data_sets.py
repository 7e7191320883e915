"""The data sets that the project made: what stands in the files, that training takes them, and the scripts."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from ase.neighborlist import neighbor_list
from ase.units import Debye
from damage import accidents

from ase_andersonn import StructureClassifier
from ase_andersonn.classifiers.features.pores import pore_features
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.labels import POLARITY, PORE_SIZE, LabelSet
from ase_andersonn.lock import InUseError
from ase_andersonn.training import read_frames
from ase_andersonn.training.classification import ClassifierTrainConfig, train_classifier
from ase_andersonn.training.classification.table import read_entries

DATA = Path(__file__).parents[1] / "data"
MOLECULES = DATA / "dipoles" / "molecules.extxyz"
GEOMETRIES = DATA / "organic" / "geometries.extxyz"
FRAMEWORKS = DATA / "pores" / "frameworks.extxyz"
SETS = [
    pytest.param(MOLECULES, POLARITY, "molecule", id="dipoles"),
    pytest.param(FRAMEWORKS, PORE_SIZE, "framework", id="pores"),
]
SMALL = {
    "cutoff": 3.5, "n_radial": 4, "l_max": 1, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2,
    "n_hidden": 16, "n_pooled": 8, "n_features": 8,
}  # fmt: skip


def missing(*modules: str) -> bool:
    return any(importlib.util.find_spec(name) is None for name in modules)


def load(path: Path) -> ModuleType:
    """A script of the data folder as a module."""
    spec = importlib.util.spec_from_file_location(f"data_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: Path, *arguments: object) -> str:
    command = [sys.executable, str(script), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# What stands in the files


@pytest.mark.parametrize(("path", "labels", "key"), SETS)
def test_every_structure_has_its_number_and_a_label(path: Path, labels: LabelSet, key: str) -> None:
    frames = read(path, ":")
    numbers = [int(atoms.info[key]) for atoms in frames]
    assert len(frames) >= 50
    assert len(set(numbers)) == len(numbers)
    entries = read_entries([str(path)], labels, value="value", path="path")
    counts = np.bincount([entry.target for entry in entries], minlength=len(labels))
    assert counts.sum() == len(frames)
    assert counts.min() >= len(frames) // 10
    assert all(np.isfinite(atoms.positions).all() for atoms in frames)


def test_molecules_agree_with_their_labels() -> None:
    frames = read(MOLECULES, ":")
    assert len({atoms.info["smiles"] for atoms in frames}) == len(frames)
    for atoms, checked in zip(frames, read_frames([str(MOLECULES)]), strict=True):
        assert not atoms.pbc.any()
        assert sum(atoms.numbers) % 2 == 0  # closed shells
        assert 0.0 <= atoms.info["value"] < 15.0
        assert np.linalg.norm(atoms.get_dipole_moment()) / Debye == pytest.approx(atoms.info["value"], abs=2e-5)
        # nothing pulls at a molecule as a whole, and MMFF94's minimum is not far from GFN2-xTB's
        np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0.0, atol=1e-6)
        assert np.abs(atoms.get_forces()).max() < 10.0
        assert -200.0 < checked.get_potential_energy() / len(atoms) < -20.0
        assert atoms.get_all_distances()[np.triu_indices(len(atoms), 1)].min() > 0.9


def test_frameworks_agree_with_their_labels() -> None:
    frames = read(FRAMEWORKS, ":")
    differences = []
    for atoms in frames:
        assert atoms.pbc.all()
        assert len(atoms) <= 250
        assert 0.0 < atoms.info["pld"] <= atoms.info["value"] < 60.0
        assert len(neighbor_list("i", atoms, 0.7)) == 0
        differences.append(pore_features(atoms)[0] - atoms.info["value"])
    # two methods, one size: Zeo++ looks at the corners of a Voronoi network, these features at a grid that is refined
    assert np.median(np.abs(differences)) < 0.1
    assert np.quantile(np.abs(differences), 0.9) < 0.3
    assert np.abs(differences).max() < 0.8


def test_organic_geometries_are_what_their_kinds_say() -> None:
    frames = read(GEOMETRIES, ":")
    assert len({atoms.info["geometry"] for atoms in frames}) == len(frames) >= 100
    min_distance: dict[str, list[float]] = {}
    for atoms in frames:
        assert sum(atoms.numbers) % 2 == 0  # closed shells
        assert ("." in atoms.info["smiles"]) == (atoms.info["kind"] in ("colliding", "pair"))
        np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0.0, atol=1e-6)
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 60.0
        distances = atoms.get_all_distances()[np.triu_indices(len(atoms), 1)]
        min_distance.setdefault(atoms.info["kind"], []).append(float(distances.min()))
    assert set(min_distance) == {"displaced", "stretched", "twisted", "colliding", "pair"}
    assert all(len(found) >= 15 and min(found) > 0.5 for found in min_distance.values())
    assert len(read_frames([str(GEOMETRIES)])) == len(frames)


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
def test_molecules_begin_at_rest_where_that_is_asked_for(smiles: str, length: float) -> None:
    """The force field draws these bonds out by 0.2 Å and more; lengths of experiment, Å."""
    make = load(DATA / "organic" / "make.py")
    molecule = make.dipoles().embedded(smiles, 0)
    atoms = make.label(make.as_atoms(make.relaxed(molecule)))
    assert atoms.get_distance(0, 1) == pytest.approx(length, abs=0.03)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < make.AT_REST + 1e-6
    assert make.as_atoms(molecule).get_distance(0, 1) > length + 0.2


@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_a_molecule_that_comes_to_rest_in_pieces_is_left_out() -> None:
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


@pytest.mark.parametrize(("path", "labels", "key"), SETS)
def test_training_and_classifier_take_them(path: Path, labels: LabelSet, key: str, tmp_path: Path) -> None:
    frames = sorted(read(path, ":"), key=len)[:24]
    write(tmp_path / "small.extxyz", frames)
    config = ClassifierTrainConfig(
        train=(str(tmp_path / "small.extxyz"),),
        output=str(tmp_path / "run"),
        labels=labels.name,
        split_by="none",
        validation_fraction=0.25,
        model=SMALL,
        batch_size=8,
        max_epochs=1,
        ema_decay=0.9,
        device="cpu",
    )
    assert train_classifier(config).finished
    torch.manual_seed(0)
    model = GraphClassifier(GraphClassifierConfig(labels=labels, **SMALL)).eval()  # type: ignore[arg-type]
    answers = StructureClassifier(model, device="cpu").predict_many(frames, progress_bar=False)
    assert {answer.best for answer in answers} <= set(labels.labels)  # type: ignore[union-attr]


@pytest.mark.skipif(missing("tblite"), reason="tblite is not installed")
def test_labels_of_molecules_are_those_of_the_engine() -> None:
    from tblite.ase import TBLite

    for atoms in read(MOLECULES, ":3"):
        again = Atoms(atoms)
        again.calc = TBLite(method="GFN2-xTB", verbosity=0)
        assert np.linalg.norm(again.get_dipole_moment()) / Debye == pytest.approx(atoms.info["value"], abs=1e-3)
        assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-3)


# The scripts


@pytest.fixture(scope="module")
def resumable() -> ModuleType:
    return load(DATA / "resumable.py")


def numbered(number: int) -> Atoms:
    """Stands for an engine that cannot do every structure."""
    if number == 2:
        raise RuntimeError("charges do not converge")
    atoms = molecule("CH3OH")
    atoms.positions += 0.1 * number
    return atoms


@pytest.mark.parametrize("lost", [1, 60, 200, 250])
def test_an_interrupted_file_is_completed(
    resumable: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: int
) -> None:
    collect: Callable[..., None] = resumable.collect
    collect(tmp_path / "whole.extxyz", range(4), "number", numbered)
    assert "0 were there, 3 added, 1 left out" in capsys.readouterr().out
    whole = (tmp_path / "whole.extxyz").read_bytes()
    (tmp_path / "cut.extxyz").write_bytes(whole[:-lost])
    collect(tmp_path / "cut.extxyz", range(4), "number", numbered)
    assert "2 were there, 1 added, 1 left out" in capsys.readouterr().out
    assert (tmp_path / "cut.extxyz").read_bytes() == whole
    assert [atoms.info["number"] for atoms in read(tmp_path / "cut.extxyz", ":")] == [0, 1, 3]


def test_a_file_cut_in_its_first_frame(resumable: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "cut.extxyz"
    path.write_text("12\nProperties=spe")
    assert resumable.whole_frames(path) == []
    assert path.read_text() == ""
    assert resumable.whole_frames(tmp_path / "nothing.extxyz") == []


def test_a_file_that_was_changed_is_told_of(resumable: ModuleType, tmp_path: Path) -> None:
    path, beside = tmp_path / "whole.extxyz", tmp_path / "whole.extxyz.sha256"
    resumable.collect(path, range(4), "number", numbered)
    assert beside.read_text().split()[1] == str(path.stat().st_size)
    for file in (path, beside):
        for damage in accidents(file):
            if damage in ("twice", "longer", "a folder") and file == path:
                continue  # what follows the whole frames is dropped
            if damage == f"cut to {beside.stat().st_size} bytes" and file == beside:
                continue  # the end of its line
            with pytest.raises(ValueError, match=r"whole\.extxyz"):
                resumable.collect(path, range(5), "number", numbered)
    resumable.collect(path, range(5), "number", numbered)
    assert [atoms.info["number"] for atoms in read(path, ":")] == [0, 1, 3, 4]
    beside.unlink()
    assert len(resumable.whole_frames(path)) == 4


def test_frames_after_the_checksum_are_made_again(
    resumable: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process is killed while it writes one, or between a frame and its checksum."""
    path = tmp_path / "whole.extxyz"
    resumable.collect(path, range(2), "number", numbered)
    whole = path.read_bytes()
    for rest in (b"12\nProp", whole, whole[:100]):
        path.write_bytes(whole + rest)
        assert [atoms.info["number"] for atoms in resumable.whole_frames(path)] == [0, 1]
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\nmore\n", "line 1 is not the number of a frame's atoms"),
        (b"1\nProperties=species:S:1:pos:R:3\nH 0 0 0\nx\n", "line 4 is not"),
        (b"1\nProperties=species:S:1:pos:R:3\nH 0 0\n", "is damaged, or no extended XYZ file"),
        (b"1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n", "holds a frame, H, without a number under 'number'"),
    ],
)
def test_a_file_of_another_kind(resumable: ModuleType, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "other.extxyz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"other\.extxyz.*{message}"):
        resumable.collect(path, range(2), "number", numbered)
    assert path.read_bytes() == content


def test_two_that_append_to_one_file(resumable: ModuleType, tmp_path: Path) -> None:
    path, errors = tmp_path / "whole.extxyz", []

    def make(number: int) -> Atoms:
        uses = (lambda: resumable.collect(path, range(2), "number", numbered), lambda: resumable.whole_frames(path))
        for use in uses if number else ():
            with pytest.raises(InUseError, match=f"in use by process {os.getpid()} on .* name another output") as error:
                use()
            errors.append(error)
        return numbered(number)

    resumable.collect(path, [0, 1], "number", make)
    assert len(errors) == 2
    assert len(read(path, ":")) == 2


def test_a_framework_that_takes_too_long_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = load(DATA / "pores" / "make.py")
    make.collect(tmp_path / "f.extxyz", range(2), "framework", lambda number: make.make_apart(number, 0.01))
    said = capsys.readouterr()
    assert "0 added, 2 left out" in said.out
    assert "no result in 0.01 s" in said.out
    assert not (tmp_path / "f.extxyz").exists()


@pytest.mark.slow
@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_molecules_depend_on_their_number_alone(tmp_path: Path) -> None:
    script = DATA / "dipoles" / "make.py"
    assert "3 added, 0 left out" in run(script, "--number", 3, "--output", tmp_path / "a.extxyz")
    assert "1 were there, 2 added" in _cut_and_run(script, tmp_path / "a.extxyz", tmp_path / "b.extxyz")
    run(script, "--first", 2, "--number", 1, "--output", tmp_path / "c.extxyz")
    a, b, c = ((tmp_path / f"{name}.extxyz").read_text() for name in "abc")
    assert a == b
    assert a.endswith(c)
    # another RDKit may find another conformer, but the molecule is the same
    for made, kept in zip(read(tmp_path / "a.extxyz", ":"), read(MOLECULES, ":3"), strict=True):
        assert made.info["molecule"] == kept.info["molecule"]
        assert made.get_chemical_formula() == kept.get_chemical_formula()


def _cut_and_run(script: Path, whole: Path, cut: Path) -> str:
    """What the script says when the second of three frames was being written when a run was interrupted."""
    lines = whole.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[: int(lines[0]) + 5]))
    return run(script, "--number", 3, "--output", cut)


@pytest.mark.slow
@pytest.mark.skipif(missing("pormake", "pyzeo"), reason="pormake or pyzeo is not installed")
def test_frameworks_depend_on_their_number_alone(tmp_path: Path) -> None:
    script = DATA / "pores" / "make.py"
    assert "2 added, 0 left out" in run(script, "--first", 4, "--number", 2, "--output", tmp_path / "a.extxyz")
    run(script, "--first", 5, "--number", 1, "--output", tmp_path / "b.extxyz")
    assert (tmp_path / "a.extxyz").read_text().endswith((tmp_path / "b.extxyz").read_text())
    kept = {atoms.info["framework"]: atoms for atoms in read(FRAMEWORKS, ":")}
    for made in read(tmp_path / "a.extxyz", ":"):
        same = kept[made.info["framework"]]
        assert made.info["net"] == same.info["net"]
        assert made.info["value"] == pytest.approx(same.info["value"], abs=0.5)


@pytest.mark.skipif(not missing("pormake", "pyzeo"), reason="pormake and pyzeo are installed")
def test_what_is_to_be_installed() -> None:
    ended = subprocess.run(
        [sys.executable, str(DATA / "pores" / "make.py"), "--number", "1"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert "pip install pormake pyzeo" in ended.stderr
