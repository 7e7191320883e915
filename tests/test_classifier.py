"""The classifier as users meet it: many kinds of structures, bad ones among them, ensembles, the command line."""

import csv
import errno
import importlib.util
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write
from ase.spacegroup import crystal
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from typer.testing import CliRunner

from ase_andersonn import StructureClassifier
from ase_andersonn.checkpoints.checkpoint import load_classifier, save_model
from ase_andersonn.classifier import UNCERTAIN, Prediction
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.cli import app
from ase_andersonn.cli.label_picture import write_picture
from ase_andersonn.cli.label_table import named_structures, write_answers
from ase_andersonn.labels import ELECTRONIC, POLARITY
from ase_andersonn.potentials.interface import ConvergenceError
from ase_andersonn.structures import SampleBatch

SMALL = {"cutoff": 4.0, "n_radial": 4, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2}
SMALLER = {"n_hidden": 16, "n_pooled": 8, "n_features": 8}


def make_model(seed: int = 0) -> GraphClassifier:
    torch.manual_seed(seed)
    return GraphClassifier(GraphClassifierConfig(**SMALL, **SMALLER)).eval()  # type: ignore[arg-type]


@pytest.fixture
def classifier() -> StructureClassifier:
    return StructureClassifier(make_model(), device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of all kinds, three of them bad, and a classifier."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.cif", bulk("NaCl", "rocksalt", 5.64))
    write(tmp_path / "in" / "POSCAR", bulk("Cu"))
    write(tmp_path / "in" / "c.extxyz", [bulk("Si"), bulk("Ge"), Atoms("H2", [(0, 0, 0), (0, 0, 0)])])
    write(tmp_path / "in" / "d.xyz", molecule("H2O"))
    (tmp_path / "in" / "broken.cif").write_text("no crystal\n")
    (tmp_path / "in" / "broken.xyz").write_text("3\n\nC 0 0\n")
    save_model(make_model(), tmp_path / "model.safetensors")
    return tmp_path


def same(a: Prediction, b: Prediction) -> bool:
    return a.name == b.name and np.allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=1e-5)


def test_one_structure_in_many_shapes(classifier: StructureClassifier, tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", 5.64)
    label = classifier.predict(atoms)
    assert label.name in ELECTRONIC.labels
    assert sum(label.probabilities.values()) == pytest.approx(1.0)
    assert label.confidence == max(label.probabilities.values()) == label.probabilities[label.best]
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert same(classifier.predict(structure), label)
    for name in ("s.cif", "POSCAR", "s.extxyz"):
        write(tmp_path / name, atoms)
        assert same(classifier.predict(tmp_path / name), label)
        assert same(classifier.predict(str(tmp_path / name)), label)


def bad_structures(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "broken.cif").write_text("no crystal\n")
    disordered = Structure(Lattice.cubic(3.0), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    disordered.to(str(tmp_path / "disordered.cif"))
    nan = bulk("Cu")
    nan.positions[0, 0] = np.nan
    return {
        "no atoms": Atoms(),
        "not finite": nan,
        "Z = ": Atoms("Og"),
        "apart": Atoms("H2", [(0, 0, 0), (0, 0, 0)]),
        "shared by several": disordered,
        "disordered": tmp_path / "disordered.cif",
        "cannot be read": tmp_path / "broken.cif",
        "no file": tmp_path / "nothing.cif",
        "neither a file|there is no file": "nothing-at-all!",
        "a structure is ase.Atoms": 5,
    }


def test_bad_structures_stop_nothing(classifier: StructureClassifier, tmp_path: Path) -> None:
    bad = bad_structures(tmp_path)
    good = bulk("Cu")
    mixed = [part for structure in bad.values() for part in (structure, good)]
    answers = classifier.predict_many(mixed, progress_bar=False)
    assert len(answers) == len(mixed)
    for text, answer in zip(bad, answers[::2], strict=True):
        assert isinstance(answer, Exception), text
        assert any(part in str(answer) for part in text.split("|")), answer
    expected = classifier.predict(good)
    for answer in answers[1::2]:
        assert isinstance(answer, Prediction)
        assert same(answer, expected)
    with pytest.raises(ValueError, match="no atoms"):
        classifier.predict(Atoms())


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_answers_do_not_depend_on_the_batch(classifier: StructureClassifier, batch_size: int) -> None:
    structures = [bulk("Cu"), molecule("CH4"), bulk("NaCl", "rocksalt", 5.6).repeat(2), Atoms("He"), bulk("Si")]

    def generator() -> Iterator[Atoms]:
        yield from structures

    answers = classifier.predict_many(generator(), batch_size=batch_size, progress_bar=False)
    for structure, answer in zip(structures, answers, strict=True):
        assert isinstance(answer, Prediction)
        assert same(answer, classifier.predict(structure))
    assert classifier.predict_many([]) == []


def test_a_block_without_memory_is_tried_one_by_one(
    classifier: StructureClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier.models[0]
    embed = model.embed

    def greedy(batch: SampleBatch) -> torch.Tensor:
        if batch.graph.n_systems > 1 or batch.graph.n_atoms > 30:
            raise RuntimeError("out of memory")
        return embed(batch)

    monkeypatch.setattr(model, "embed", greedy)
    answers = classifier.predict_many([bulk("Cu"), bulk("Cu").repeat(4), bulk("Si")], progress_bar=False)
    assert [isinstance(a, Prediction) for a in answers] == [True, False, True]


def test_below_the_confidence_the_answer_is_uncertain() -> None:
    atoms = bulk("Cu")
    plain = StructureClassifier(make_model(), device="cpu").predict(atoms)
    careful = StructureClassifier(make_model(), device="cpu", confidence=1.0).predict(atoms)
    assert careful.name == UNCERTAIN
    assert careful.best == plain.name == plain.best
    assert careful.probabilities == plain.probabilities


def test_temperature_and_out_of_distribution_score() -> None:
    model = make_model()
    cold = StructureClassifier(model, device="cpu").predict(bulk("Cu"))
    model.temperature.fill_(100.0)
    model.novelty_scale.fill_(1e-3)
    warm = StructureClassifier(model, device="cpu").predict(bulk("Cu"))
    assert warm.confidence < cold.confidence
    assert max(warm.probabilities.values()) - min(warm.probabilities.values()) < 0.02
    assert warm.unusual
    assert warm.out_of_distribution == pytest.approx(1e3 * cold.out_of_distribution, rel=1e-4)


def warnings_of(classifier: StructureClassifier, structures: list[Atoms]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier.predict_many(structures, progress_bar=False)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(("name", "inside"), [("electronic", bulk("Si")), ("polarity", molecule("CH3CH2OH"))])
def test_structures_of_another_kind_are_warned_of_once(name: str, inside: Atoms) -> None:
    classifier = StructureClassifier(name, device="cpu")
    outside = molecule("H2O") if inside.pbc.all() else bulk("NaCl", "rocksalt", 5.64)
    (text,) = warnings_of(classifier, [outside, outside, inside])
    assert f"classifier of the {classifier.labels.quantity} was trained on structures that are" in text
    assert "has no meaning" in text
    assert warnings_of(classifier, [outside]) == []
    answer = classifier.predict(outside)
    assert answer.warning == text
    assert answer.unusual
    assert classifier.predict(inside).warning is None


@pytest.mark.parametrize(
    ("name", "structures"),
    [
        ("electronic", [bulk("Si"), bulk("Cu"), bulk("NaCl", "rocksalt", 5.64), bulk("GaAs", "zincblende", 5.65)]),
        ("polarity", [molecule(name) for name in ("CH3CH2OH", "C6H6", "CH3CN", "C2H6", "C5H5N", "CH3COOH")]),
    ],
)
def test_ordinary_structures_are_not_warned_of(name: str, structures: list[Atoms]) -> None:
    classifier = StructureClassifier(name, device="cpu")
    assert warnings_of(classifier, structures) == []


def test_structures_far_from_the_training_data_are_warned_of_once() -> None:
    model = make_model()
    model.novelty_scale.fill_(1e-3)
    classifier = StructureClassifier(model, device="cpu")
    (text,) = warnings_of(classifier, [bulk("Cu"), bulk("Si"), bulk("Ni")])
    assert "out-of-distribution score is above" in text
    assert classifier.predict(bulk("Cu")).warning == text
    model.card = {"periodic_directions": [0, 2]}
    text, _ = warnings_of(StructureClassifier(model, device="cpu"), [bulk("Cu"), molecule("H2")])
    assert "structures that are not periodic or periodic in two directions, and this one is periodic in three" in text


def test_an_ensemble_is_the_mean_of_its_members(tmp_path: Path) -> None:
    models = [make_model(seed) for seed in range(3)]
    for k, model in enumerate(models):
        save_model(model, tmp_path / f"{k}.safetensors")
    atoms = bulk("NaCl", "rocksalt", 5.64)
    single = [StructureClassifier(model, device="cpu").predict(atoms).probabilities for model in models]
    for source in (models, tmp_path, [tmp_path / "0.safetensors", *models[1:]]):
        label = StructureClassifier(source, device="cpu").predict(atoms)  # type: ignore[arg-type]
        for name, p in label.probabilities.items():
            assert p == pytest.approx(np.mean([one[name] for one in single]), abs=1e-6)
        assert label.std > 0.0


def test_what_makes_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="confidence is 2"):
        StructureClassifier(make_model(), confidence=2)
    with pytest.raises(ValueError, match=r"gives .*electronic.*not .*polarity"):
        StructureClassifier(make_model(), labels="polarity")
    with pytest.raises(ValueError, match="at least one model"):
        StructureClassifier([])
    with pytest.raises(FileNotFoundError, match=r"the folder .* holds no \.safetensors files"):
        StructureClassifier(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model 'nothing'"):
        StructureClassifier("nothing")
    with pytest.raises(FileNotFoundError, match=r"organic is a potential, .* use AndersoNN\('organic'\)"):
        StructureClassifier("organic")
    with pytest.raises(ValueError, match="batch_size is 0"):
        StructureClassifier(make_model()).predict_many([], batch_size=0)
    config = GraphClassifierConfig(labels=ELECTRONIC.at(2.0), **SMALL, **SMALLER)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need one label set"):
        StructureClassifier([make_model(), GraphClassifier(config)])


def test_the_callers_model_stays_as_it_is() -> None:
    model = make_model().train()
    StructureClassifier(model, device="cpu", dtype="float64").predict(bulk("Cu"))
    assert model.training
    assert model.learned.dtype == torch.float32
    assert model.learned.requires_grad


@pytest.mark.skipif(importlib.util.find_spec("rdkit") is None, reason="rdkit is not installed")
def test_smiles(classifier: StructureClassifier) -> None:
    assert classifier.predict("CCO").name in ELECTRONIC.labels


# The command line


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("suffix", ["csv", "json", "db"])
def test_classify_writes_a_table(folder: Path, suffix: str) -> None:
    out = folder / f"out.{suffix}"
    code, text = run(
        "classify", folder / "in", "--model", folder / "model.safetensors", "--out", out, "--device", "cpu"
    )
    assert code == 1, "some failed"
    assert "metal" in text
    assert text.count("failed: ") == 3
    for name in ("broken.cif", "broken.xyz", "c.extxyz#2"):
        assert name in text
    if suffix == "db":
        assert connect(out).count() == 5
        assert {row.label for row in connect(out).select()} <= set(ELECTRONIC.labels)
        return
    table = json.loads(out.read_text()) if suffix == "json" else list(csv.DictReader(out.open()))
    assert len(table) == 8
    assert sum(bool(row["error"]) for row in table) == 3
    for row in table:
        if not row["error"]:
            assert sum(float(row[f"p({label})"]) for label in ELECTRONIC.labels) == pytest.approx(1.0)


def test_classify_says_which_answers_have_no_meaning(folder: Path) -> None:
    write(folder / "water.xyz", molecule("H2O"))
    write(folder / "Si.cif", bulk("Si"))
    arguments = ("classify", folder / "water.xyz", folder / "Si.cif", "--labels", "electronic", "--device", "cpu")
    with pytest.warns(UserWarning, match="and this one is not periodic: the answer has no meaning"):
        found = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    water, silicon = json.loads(found.stdout)
    assert "has no meaning" in water["warning"]
    assert (water["unusual"], silicon["unusual"], silicon["warning"]) == (True, False, None)
    out = folder / "out.csv"
    with pytest.warns(UserWarning, match="has no meaning"):
        code, text = run(*arguments, "--out", out)
    assert code == 0
    assert "warned of" in text
    assert [bool(row["warning"]) for row in csv.DictReader(out.open())] == [True, False]


def test_classify_draws_a_picture(folder: Path) -> None:
    picture = folder / "in" / "labels.png"
    for _ in range(2):  # the picture of the first is no structure of the second
        code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--plot", picture)
        assert code == 1, "some failed"
        assert text.count("failed: ") == 3
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--plot", "no/labels.png")
    assert code == 1
    assert "there is no folder" in text
    assert "metal" not in text


def test_a_picture_of_two_labels_and_of_none(tmp_path: Path) -> None:
    weak, strong = POLARITY.labels
    answers = [
        Prediction(weak, {weak: 0.9, strong: 0.1}, weak, 0.9, 0.5),
        Prediction(UNCERTAIN, {weak: 0.5, strong: 0.5}, weak, 0.5, 2.0),
    ]
    write_picture(tmp_path / "two.png", ["a", "b", "c"], [*answers, ValueError("bad")], POLARITY, 0.7)
    assert (tmp_path / "two.png").stat().st_size
    with pytest.raises(ValueError, match="no structure has a label"):
        write_picture(tmp_path / "none.png", ["c"], [ValueError("bad")], POLARITY)
    assert not (tmp_path / "none.png").exists()


def test_several_structures_are_for_predict_many(classifier: StructureClassifier) -> None:
    with pytest.raises(TypeError, match="predict_many takes several"):
        classifier.predict([bulk("Si"), bulk("Cu")])


def test_a_table_is_no_structure_of_its_folder_and_replaces_no_input(folder: Path) -> None:
    model, out = folder / "model.safetensors", folder / "in" / "labels.db"
    counts = []
    for _ in range(2):
        code, _ = run("classify", folder / "in", "--model", model, "--out", out)
        assert code == 1, "some failed"
        counts.append(connect(out).count())
    assert counts == [5, 5]
    before = out.read_bytes()
    code, text = run("classify", out, "--model", model, "--out", out)
    assert code == 1
    assert "one of the files to be read" in text
    assert out.read_bytes() == before
    assert not list(out.parent.glob(".labels*"))
    out.unlink()


def test_folders_in_a_folder_are_read_and_notes_are_not(folder: Path) -> None:
    for name in ("more/deep", ".hidden"):
        (folder / "in" / name).mkdir(parents=True)
        write(folder / "in" / name / "e.cif", bulk("Si"))
    (folder / "in" / "notes.txt").write_text("of the day")
    names: list[str] = []
    assert len(list(named_structures([str(folder / "in")], names))) == 9
    assert sum("e.cif" in name for name in names) == 1
    assert not any("notes" in name for name in names)


def test_an_empty_folder_is_an_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    code, text = run("classify", folder / "empty", "--model", folder / "model.safetensors")
    assert (code, "there is no structure in" in text) == (1, True), text


def test_lengths_in_nanometres_are_refused() -> None:
    classifier = StructureClassifier(make_model())
    silicon = bulk("Si")
    classifier.predict(silicon)
    silicon.set_cell(0.1 * silicon.cell, scale_atoms=True)
    with pytest.raises(ValueError, match=r"atoms 0 and 1 are 0\.24 Å apart, 0\.11 of the sum.* Are the lengths in Å"):
        classifier.predict(silicon)


def test_classify_fails_if_any_failed(folder: Path) -> None:
    model = folder / "model.safetensors"
    code, text = run("classify", folder / "in" / "broken.cif", "--model", model)
    assert code == 1
    assert text.count("broken.cif") == 1
    assert "failed: " in text
    code, text = run("classify", folder / "in" / "*.xyz", "--model", model, "--confidence", 1.0)
    assert code == 1, "one of them failed"
    assert UNCERTAIN in text
    code, _ = run("classify", folder / "in" / "a.cif", "--model", model)
    assert code == 0
    code, text = run("classify", folder / "in", "--model", model, "--out", folder / "out.txt")
    assert code == 1
    assert "unknown ending" in text
    code, text = run("classify", folder / "in", "--labels", "colour")
    assert code == 1
    assert "no label set 'colour'" in text


@pytest.mark.parametrize("suffix", ["csv", "json", "db"])
def test_a_name_that_is_no_utf_8_is_a_row(folder: Path, suffix: str) -> None:
    try:
        os.rename(folder / "in" / "a.cif", os.fsencode(folder / "in") + b"/caf\xe9.cif")
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    out = folder / f"out.{suffix}"
    code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--out", out)
    assert code == 1, text
    if suffix == "db":
        names = [row.data["name"] for row in connect(out).select()]
    else:
        table = json.loads(out.read_text()) if suffix == "json" else list(csv.DictReader(out.open()))
        names = [row["name"] for row in table if not row["error"]]
    assert len(names) == 5
    assert any(name.endswith("caf\\xe9.cif") for name in names)


def test_surrogates_in_names_and_errors_are_escaped(tmp_path: Path) -> None:
    for suffix in ("csv", "json"):
        write_answers(tmp_path / f"a.{suffix}", ["caf\udce9"], [ValueError("caf\udce9 is bad")], [])
        assert (tmp_path / f"a.{suffix}").read_text(encoding="utf-8").count("\\udce9") == 2


@pytest.mark.parametrize("suffix", ["csv", "json", "db"])
def test_a_full_disk_loses_no_answer(folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """The table is kept among the temporary files; where that is not possible either, it is shown."""
    model, out = folder / "model.safetensors", folder / f"out.{suffix}"
    (folder / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
    full = [folder]

    def atomic_write(path: Path, data: bytes) -> None:
        if path.parent in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr("ase_andersonn.cli.label_table.atomic_write", atomic_write)
    code, text = run("classify", folder / "in", "--model", model, "--out", out)
    assert code == 1
    assert "No space left on device" in text
    assert "mean confidence" in text
    (kept,) = (folder / "temporary").glob(f"*/labels.{suffix}")
    assert str(kept) in text
    assert kept.stat().st_size
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: (_ for _ in ()).throw(OSError("No usable temporary directory")))
    monkeypatch.setattr("ase_andersonn.cli.label_table._as_database", lambda *_: b"")
    code, text = run("classify", folder / "in", "--model", model, "--out", out)
    assert code == 1
    assert sum(f"{folder / 'in'}" in line and "error" not in line for line in text.splitlines()) >= 5


def test_a_place_where_nothing_can_be_written_is_told_of_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "labels.csv").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--out", folder / "labels.csv")
    assert code == 1
    assert text.splitlines()[0].endswith(
        "labels.csv cannot be written: it is a folder. The table will be kept elsewhere."
    )
    (kept,) = folder.glob("andersonn-*/labels.csv")
    assert len(list(csv.DictReader(kept.open()))) == 8
    code, text = run("classify", folder / "in", "--plot", folder / "labels.csv")
    assert (code, "unknown ending" in text) == (1, True)


def test_where_all_failed_there_is_no_table_of_zeros(folder: Path) -> None:
    code, text = run("classify", folder / "in" / "broken.cif", "--model", folder / "model.safetensors")
    assert code == 1
    assert len(text.splitlines()) == 1
    assert text.startswith("failed: ")


def test_every_structure_of_every_file_is_labelled(folder: Path) -> None:
    for name in ("several.cif", "several.db", "XDATCAR"):
        write(folder / "in" / name, [bulk("Si")] * 3)
    names: list[str] = []
    assert len(list(named_structures([str(folder / "in")], names))) == 8 + 9
    assert sum("several.cif#" in name for name in names) == 3


def test_whatever_is_wrong_with_a_structure_is_its_own_error(
    classifier: StructureClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = classifier.models[0].sample

    def broken(atoms: Atoms) -> object:
        if len(atoms) == 2:
            raise AttributeError("no values")
        return sample(atoms)

    monkeypatch.setattr(classifier.models[0], "sample", broken)
    good, bad = classifier.predict_many([bulk("Cu"), bulk("Si")], progress_bar=False)
    assert isinstance(good, Prediction)
    assert "AttributeError: no values" in str(bad)


def test_an_equilibrium_that_is_not_reached_is_an_error(classifier: StructureClassifier) -> None:
    model = classifier.models[0]
    model.config = replace(model.config, max_steps=1)
    answers = classifier.predict_many([bulk("NaCl", "rocksalt", 5.64), bulk("Cu")], progress_bar=False)
    assert [type(answer) for answer in answers] == [ConvergenceError] * 2
    with pytest.raises(ConvergenceError, match="did not converge"):
        classifier.predict(bulk("Cu"))


def test_ten_bad_ones_in_a_thousand(classifier: StructureClassifier) -> None:
    structures: list[object] = [bulk("Cu", a=3.0 + 0.001 * k) for k in range(1000)]
    bad = range(3, 1000, 100)
    for k in bad:
        structures[k] = Atoms("H2", [(0, 0, 0), (0, 0, 0)]) if k % 200 == 3 else "nothing-at-all!"
    answers = classifier.predict_many(structures, progress_bar=False)
    assert [k for k, answer in enumerate(answers) if isinstance(answer, Exception)] == list(bad)
    alone = classifier.predict(structures[777])
    assert isinstance(answers[777], Prediction)
    assert same(answers[777], alone)


@pytest.mark.slow
def test_ten_broken_files_in_a_thousand(folder: Path) -> None:
    (folder / "many").mkdir()
    for k in range(1000):
        write(folder / "many" / f"{k:03d}.cif", bulk("Cu", a=3.0 + 0.001 * k))
    broken = [f"{k:03d}.cif" for k in range(3, 1000, 100)]
    for name in broken:
        (folder / "many" / name).write_text((folder / "many" / name).read_text()[:200])
    out = folder / "out.csv"
    code, text = run("classify", folder / "many", "--model", folder / "model.safetensors", "--out", out)
    assert code == 1, "ten failed"
    assert text.count("failed: ") == len(broken)
    assert all(f"{name} cannot be read" in text for name in broken)
    table = list(csv.DictReader(out.open()))
    assert len(table) == 1000
    assert [Path(row["name"]).name for row in table if row["error"]] == broken


@pytest.mark.parametrize(
    ("crystal", "label"),
    [
        (bulk("Cu"), "metal"),
        (bulk("Al"), "metal"),
        (bulk("Si"), "semiconductor"),
        (bulk("MgO", "rocksalt", a=4.21), "insulator"),
        (bulk("NaCl", "rocksalt", a=5.64), "insulator"),
    ],
)
def test_the_packaged_electronic_labels_of_common_crystals(crystal: Atoms, label: str) -> None:
    assert StructureClassifier().predict(crystal).name == label
    assert {"data", "limits", "test"} <= set(load_classifier("electronic").card)


def test_the_packaged_ensemble_knows_where_its_members_disagree() -> None:
    classifier = StructureClassifier("electronic-ensemble")
    assert len(classifier.models) == 5
    copper, silicon = (classifier.predict(bulk(name)) for name in ("Cu", "Si"))
    assert (copper.name, silicon.name) == ("metal", "semiconductor")
    assert silicon.std > 5.0 * copper.std > 0.0
    assert all({"data", "limits", "test"} <= set(member.card) for member in classifier.models)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("CH4", "weakly polar"),
        ("C6H6", "weakly polar"),
        ("C2H6", "weakly polar"),
        ("CH3CN", "strongly polar"),
        ("CH3NO2", "strongly polar"),
        ("CH3CHO", "strongly polar"),
    ],
)
def test_the_packaged_polarity_of_common_molecules(name: str, label: str) -> None:
    assert StructureClassifier("polarity").predict(molecule(name)).name == label
    assert {"data", "limits", "test"} <= set(load_classifier("polarity").card)


def test_the_packaged_pore_sizes_of_known_frameworks() -> None:
    sites = [
        *((0.2935, 0.2065, 0.2065), (0.25, 0.25, 0.25), (0.2806, 0.2194, 0.1338), (0.25, 0.25, 0.1113)),
        *((0.25, 0.25, 0.0538), (0.2829, 0.2171, 0.0269), (0.3049, 0.1951, 0.0448)),
    ]
    cell = [25.67, 25.67, 25.67, 90, 90, 90]
    mof5 = crystal(["Zn", "O", "O", "C", "C", "C", "H"], sites, spacegroup=225, cellpar=cell, primitive_cell=True)
    classifiers = [StructureClassifier(name) for name in ("pore-size", "pore-size-3")]
    assert [classifier.predict(mof5).name for classifier in classifiers] == ["large pores"] * 2
    sites = [(0.4697, 0.0, 2 / 3), (0.4135, 0.2669, 0.7858)]
    quartz = crystal(["Si", "O"], sites, spacegroup=154, cellpar=[4.916, 4.916, 5.405, 90, 90, 120])
    assert [classifier.predict(quartz).name for classifier in classifiers] == ["small pores"] * 2
    assert all({"data", "limits", "test"} <= set(classifier.models[0].card) for classifier in classifiers)
