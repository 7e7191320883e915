"""A small classifier, and a folder of good and bad structure files."""

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from small_classifier import make_model

from ase_andersonn import StructureClassifier
from ase_andersonn.checkpoints.checkpoint import save_model


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
