"""Set-up of a training run: elements, reference energies, labels, and warnings about the frames."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_andersonn import load_model
from ase_andersonn.nn.radial import clamped_distance
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.training import TrainConfig, read_frames, train
from ase_andersonn.training.config import LabelKeys
from ase_andersonn.training.setup import TrainingSetup, build_model, frames_of


def test_elements_of_the_validation_set_have_to_be_known(config: TrainConfig) -> None:
    frames = read_frames(config.train)
    metals = [atoms for atoms in frames if 7 not in atoms.numbers]
    model = build_model(config, (28, 29))
    with pytest.raises(ValueError, match="validation frames contain N,"):
        TrainingSetup.from_frames(config, model, metals, frames)


def test_reference_energies_of_elements_that_the_model_does_not_know(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="reference_energies names O, Au, which the model does not know; leave that"):
        TrainingSetup.from_config(replace(config, reference_energies={"Au": 1.0, "Cu": 2.0, "O": 3.0}))


def test_elements_are_symbols_or_numbers(config: TrainConfig) -> None:
    def elements(given: object) -> tuple[int, ...]:
        return build_model(replace(config, model={**config.model, "elements": given}), (28, 29)).elements

    assert elements(["Cu", "N", "Ni"]) == elements([7, 28, 29]) == (7, 28, 29)
    for wrong in (["Cu", "Nx"], ["Cu", 28], "Cu"):
        with pytest.raises(TypeError, match=r"model\.elements"):
            elements(wrong)


def test_a_model_of_forces_alone_says_so(
    config: TrainConfig, frames: list[Atoms], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for atoms in frames:
        del atoms.calc.results["energy"]
    write(tmp_path / "forces.extxyz", frames)
    for changes in ({"train": (str(tmp_path / "forces.extxyz"),)}, {"energy_weight": 0.0}):
        caplog.clear()
        found = train(replace(config, max_epochs=1, **changes), fresh=True)
        assert "no energies are learnt: those of the model are known but for a number" in caplog.text
        assert "No energies were learnt" in load_model(found.folder / "best.safetensors").card["limits"][0]


@pytest.mark.parametrize(
    ("charge", "partial", "reported"),
    [
        (1, 0.0, True),
        ("+1", 0.0, True),
        ([0.6, 0.4], 0.0, True),
        (0, 0.1, False),
        ("neutral", 0.0, False),
        (math.nan, 0.0, False),
    ],
)
def test_charged_frames_are_reported(
    config: TrainConfig,
    frames: list[Atoms],
    charge: Any,
    partial: float,
    reported: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for atoms in frames[:3]:
        atoms.info["charge"] = charge
        atoms.set_initial_charges([partial, -partial, *[0.0] * (len(atoms) - 2)])
    write(config.train[0], frames)
    frames_of(config)
    assert ("3 of 10 frames are charged, and the model knows no charges" in caplog.text) == reported


@pytest.mark.parametrize("weights", [{"energy_weight": 0.0, "forces_weight": 0.0}, {"energy_weight": 0.0}])
def test_labels_without_a_weight_are_none(config: TrainConfig, tmp_path: Path, weights: dict[str, float]) -> None:
    """The others have a weight, the stress by default, but no frame has them."""
    frame = Atoms("N2", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
    frame.calc = SinglePointCalculator(frame, energy=-1.0)
    write(tmp_path / "energies.extxyz", [frame] * 4)
    changed = replace(config, train=(str(tmp_path / "energies.extxyz"),), **weights)
    with pytest.raises(ValueError, match=r"the weights ask for .*stress, and the training frames have energy"):
        TrainingSetup.from_config(changed)


def test_a_label_that_no_validation_frame_has_is_reported(
    config: TrainConfig, frames: list[Atoms], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Molecules beside crystals that have stresses are no error; a misspelt name looks the same."""
    named = [atoms.copy() for atoms in frames]
    for atoms, own in zip(named, frames, strict=True):
        atoms.info["dft"] = own.get_potential_energy()
    write(tmp_path / "named.extxyz", named)
    frames_of(
        replace(
            config,
            train=(str(tmp_path / "named.extxyz"),),
            validation=config.train,
            labels=LabelKeys(energy="dft"),
        )
    )
    assert "no validation frame has energy under the name 'dft'; the first has energy" in caplog.text


def test_frames_in_both_sets_are_reported(config: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    frames_of(config)
    assert not caplog.text
    frames_of(replace(config, validation=config.train))
    assert "10 of the 10 validation frames are training frames as well" in caplog.text


def test_minimum_distances_lie_a_little_below_the_shortest_of_the_frames(config: TrainConfig) -> None:
    experiment = TrainingSetup.from_config(config)
    model = experiment.model
    assert isinstance(model, DEQAttention)
    for pair, shortest in experiment.train.min_distance().items():
        first, second = (model.elements.index(z) for z in pair)
        for minimum in (model.min_distance[first, second], model.min_distance[second, first]):
            assert float(minimum) == pytest.approx(0.9 * shortest)
            near = torch.tensor(0.92 * shortest)
            assert clamped_distance(near, minimum) == near
