"""Packaged classifiers on well-known structures."""

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.spacegroup import crystal

from ase_andersonn import StructureClassifier
from ase_andersonn.checkpoints.checkpoint import load_classifier


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
