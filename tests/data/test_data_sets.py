"""Data sets in `data`: structures agree with their labels, and training reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write
from ase.neighborlist import neighbor_list
from ase.units import Debye
from data_scripts import FRAMEWORKS, GEOMETRIES, MOLECULES

from ase_andersonn import StructureClassifier
from ase_andersonn.classifiers.features.pores import pore_features
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.labels import POLARITY, PORE_SIZE, LabelSet
from ase_andersonn.training import read_frames
from ase_andersonn.training.classification import ClassifierTrainConfig, train_classifier
from ase_andersonn.training.classification.table import read_entries

SETS = [
    pytest.param(MOLECULES, POLARITY, "molecule", id="dipoles"),
    pytest.param(FRAMEWORKS, PORE_SIZE, "framework", id="pores"),
]
SMALL = {
    "cutoff": 3.5, "n_radial": 4, "l_max": 1, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2,
    "n_hidden": 16, "n_pooled": 8, "n_features": 8,
}  # fmt: skip


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
