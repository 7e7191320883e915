"""The config of a short training run of a classifier."""

from pathlib import Path

import pytest
from ase.io import write
from crystals import SMALL, crystals

from ase_andersonn.training.classification import ClassifierTrainConfig


@pytest.fixture
def config(tmp_path: Path) -> ClassifierTrainConfig:
    """A run of three epochs with a few steps each."""
    write(tmp_path / "crystals.extxyz", crystals())
    return ClassifierTrainConfig(
        train=(str(tmp_path / "crystals.extxyz"),),
        output=str(tmp_path / "run"),
        validation_fraction=0.2,
        split_by="none",
        model=SMALL,
        batch_size=8,
        block_atoms=8,
        max_epochs=3,
        ema_decay=0.9,
        device="cpu",
    )
