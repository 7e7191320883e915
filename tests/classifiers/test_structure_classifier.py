"""StructureClassifier: kinds of input, batches, ensembles, confidence and out-of-distribution score."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from small_classifier import SMALL, SMALLER, make_model, same

from ase_andersonn import StructureClassifier
from ase_andersonn.checkpoints.checkpoint import save_model
from ase_andersonn.classifier import UNCERTAIN, Prediction
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.labels import ELECTRONIC


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


def test_several_structures_are_for_predict_many(classifier: StructureClassifier) -> None:
    with pytest.raises(TypeError, match="predict_many takes several"):
        classifier.predict([bulk("Si"), bulk("Cu")])
