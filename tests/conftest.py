"""What holds for all tests: `gpu` tests run where there is a CUDA device; hypothesis is repeatable and not timed."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.append(str(Path(__file__).parents[1]))  # for tests of functions in benchmarks/

settings.register_profile("ase-andersonn", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ase-andersonn")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
