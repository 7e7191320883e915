"""The recipe of the organic potential: conversion of the tables, and a config that the trainer accepts."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from ase_andersonn.config import read_config
from ase_andersonn.training import TrainConfig, read_frames
from ase_andersonn.training.setup import build_model

RECIPE = Path(__file__).parents[1] / "data" / "recipes" / "organic"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("organic_frames", RECIPE / "frames.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_become_frames_with_labels(
    prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One molecule after another; one with a force that no potential should learn is left out."""
    n_atoms, rng = np.array([2, 3, 2]), np.random.default_rng(0)
    forces = rng.normal(size=(7, 3))
    forces[5] = [0.0, 80.0, 0.0]
    table = tmp_path / "some.npz"
    np.savez(
        table,
        n_atoms=n_atoms,
        smiles=np.array(["[HH]", "O", "[HH]"]),
        numbers=np.array([1, 1, 8, 1, 1, 1, 1]),
        positions=rng.normal(size=(7, 3)),
        gfn2_energy_eV=np.array([-27.0, -138.0, -27.0]),
        gfn2_forces_eV_A=forces,
    )
    prepare.main([str(table), "--output", str(tmp_path)])
    assert capsys.readouterr().out == "some: 2 molecules\n"
    first, second = read_frames([str(tmp_path / "some.extxyz")])
    assert (first.get_chemical_formula(), second.get_chemical_formula()) == ("H2", "H2O")
    assert second.get_potential_energy() == -138.0
    np.testing.assert_allclose(second.get_forces(), forces[2:5], atol=1e-8)
    assert second.info["smiles"] == "O"
    assert (tmp_path / "some.smi").read_text() == "[HH]\nO\n[HH]\n"


def test_the_config_is_one_of_a_model() -> None:
    config = read_config(TrainConfig, RECIPE / "config.yaml")
    model = build_model(config, (1, 6, 7, 8, 9, 15, 16, 17, 35))
    assert type(model).__name__ == config.architecture == "DEQAttention"


def test_the_card_says_what_the_model_is_not_for() -> None:
    card = yaml.safe_load((RECIPE / "card.yaml").read_text(encoding="utf-8"))
    assert card["name"] == "organic"
    assert all(isinstance(limit, str) for limit in card["limits"])


def test_the_small_molecules_are_neutral_closed_shells_and_each_there_once() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    names = [name for file in ("small", "common") for name in (RECIPE / f"{file}.smi").read_text("utf-8").split()]
    molecules = [chem.MolFromSmiles(name) for name in names]
    assert len({chem.MolToSmiles(molecule) for molecule in molecules}) == len(names)
    assert f"{len(names)} small ones" in (RECIPE / "README.md").read_text(encoding="utf-8")
    for molecule in molecules:
        atoms = chem.AddHs(molecule).GetAtoms()
        assert chem.GetFormalCharge(molecule) == 0
        assert not any(atom.GetNumRadicalElectrons() for atom in atoms)
        assert {atom.GetAtomicNum() for atom in atoms} <= {1, 6, 7, 8, 9, 15, 16, 17, 35}


def test_the_benchmark_asks_for_molecules_that_are_not_in_the_lists_of_training() -> None:
    chem = pytest.importorskip("rdkit.Chem")
    source = ast.parse((RECIPE.parents[2] / "benchmarks" / "accuracy" / "organic.py").read_text(encoding="utf-8"))
    (asked,) = (
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MOLECULES"
    )
    lists = [RECIPE / "small.smi", RECIPE / "common.smi"]
    trained = {chem.MolToSmiles(chem.MolFromSmiles(name)) for path in lists for name in path.read_text("utf-8").split()}
    assert len(asked) == 10
    assert not trained & {chem.MolToSmiles(chem.MolFromSmiles(smiles)) for smiles in asked.values()}
