"""Structures that cannot be classified: each gets its own error and the others their labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from small_classifier import make_model, same

from ase_andersonn import StructureClassifier
from ase_andersonn.classifier import Prediction
from ase_andersonn.potentials.interface import ConvergenceError
from ase_andersonn.structures import SampleBatch


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


def test_lengths_in_nanometres_are_refused() -> None:
    classifier = StructureClassifier(make_model())
    silicon = bulk("Si")
    classifier.predict(silicon)
    silicon.set_cell(0.1 * silicon.cell, scale_atoms=True)
    with pytest.raises(ValueError, match=r"atoms 0 and 1 are 0\.24 Å apart, 0\.11 of the sum.* Are the lengths in Å"):
        classifier.predict(silicon)


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
