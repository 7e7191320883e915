"""A saved model."""

from pathlib import Path

import pytest
import torch
from small_models import CARD, small_model

from ase_andersonn import save_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(small_model(dtype=torch.float32), path, CARD)
    return path
