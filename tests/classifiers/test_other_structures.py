"""Warnings of structures of another kind than a classifier was trained on."""

import csv
import json
import warnings
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from command_line import run
from small_classifier import make_model
from typer.testing import CliRunner

from ase_andersonn import StructureClassifier
from ase_andersonn.cli import app


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
