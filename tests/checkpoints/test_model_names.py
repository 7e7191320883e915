"""Names of models: packaged models, files and folders, elements, and errors that suggest a name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from small_models import small_model

from ase_andersonn import AndersoNN, StructureClassifier, load_model, save_model
from ase_andersonn.checkpoints.checkpoint import load_classifier
from ase_andersonn.pretrained.catalog import model_files, models_of, packaged_models


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'mlearn-pbe'\?"):
        load_model("MLEARN_PBE")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'organic'\?"):
        load_model("organik.safetensors")
    with pytest.raises(
        FileNotFoundError, match="there is no model 'water': neither a file of that name nor a packaged"
    ):
        load_model("water")
    with pytest.raises(
        FileNotFoundError, match=r"electronic is a classifier.* use StructureClassifier\('electronic'\)"
    ):
        load_model("electronic")
    with pytest.raises(FileNotFoundError, match=r"the folder .* holds no \.safetensors files"):
        load_model(tmp_path)


@pytest.mark.parametrize("given", ["", "  ", "a\0b", "x" * 5000])
@pytest.mark.parametrize("load", [load_model, AndersoNN, load_classifier, StructureClassifier])
def test_names_that_name_nothing(
    saved: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Any], given: str
) -> None:
    monkeypatch.chdir(saved.parent)  # where there is a model
    with pytest.raises(FileNotFoundError, match=r"model.*; give the path|there is no model .*Give the path"):
        load(given)


def test_folders_without_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for given in (".", "empty", tmp_path / "empty", "./empty/"):
        with pytest.raises(FileNotFoundError, match=r"the folder .* holds no .safetensors files"):
            AndersoNN(given)


@pytest.mark.parametrize("name", packaged_models())
def test_packaged_models_load(name: str) -> None:
    model = load_model(name)
    assert model.card
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def test_models_of_elements_are_named() -> None:
    assert "graphene" in models_of([6])
    assert models_of([29, 14]) == ["mlearn-pbe", "mlearn-pbe-large", "universal"]
    assert models_of([6, 79]) == ["universal"]
    assert models_of([6, 84]) == []  # no one knows polonium


@pytest.mark.parametrize(
    ("model", "formula", "text"),
    [
        (
            "mlearn-pbe",
            "C2",
            "contains C; this model knows Li, Si, Ni, Cu, Mo. Packaged models .* C: .*graphene",
        ),
        ("graphene", "CuLi", "contains Li, Cu; this model knows C. Packaged models that know Li, Cu: mlearn-pbe"),
        ("graphene", "CAu", "contains Au; this model knows C. Packaged models that know Au: universal"),
        ("graphene", "CPo", "contains Po; this model knows C. No packaged model knows Po: train one"),
    ],
)
def test_an_unknown_element_names_the_models_that_know_it(model: str, formula: str, text: str) -> None:
    atoms = Atoms(formula, positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]], calculator=AndersoNN(model, compile=False))
    with pytest.raises(ValueError, match=text):
        atoms.get_potential_energy()


def test_a_folder_that_holds_no_model_does_not_hide_a_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "graphene").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("graphene").elements == (6,)


def test_what_lies_under_a_path_comes_before_what_is_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graphene").mkdir()
    for name in ("graphene/a", "graphene/b", "graphene-alone"):
        save_model(small_model(dtype=torch.float32), tmp_path / f"{name}.safetensors")
    save_model(small_model(1, dtype=torch.float32), tmp_path / "graphene.safetensors")
    monkeypatch.chdir(tmp_path)
    for given in ("graphene", "./graphene", Path("graphene"), tmp_path / "graphene"):
        assert [file.parent.name for file in model_files(given)] == ["graphene", "graphene"]
    for given in ("classifiers", "nothing/graphene"):
        with pytest.raises(FileNotFoundError, match="there is no model"):
            load_model(given)
