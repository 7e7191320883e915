"""What holds for all tests: `gpu` tests run where there is a CUDA device; hypothesis is repeatable and not timed."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from ase_andersonn.engine.native import library

sys.path.append(str(Path(__file__).parents[1]))  # for tests of functions in benchmarks/

settings.register_profile("ase-andersonn", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ase-andersonn")
# No test depends on whether this machine has compiled kernels: those of test_native.py build their own.
os.environ[library.CACHE] = tempfile.mkdtemp(prefix="kernels-")
library.build_in_background = lambda: None  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
