"""Modules of the recipe of the universal training set."""

import sys
from types import SimpleNamespace

import pytest
from universal_frames import ROOT


@pytest.fixture(scope="module")
def set_of() -> SimpleNamespace:
    """The modules of the recipe, as its scripts see them."""
    names = ("split", "packed", "sources", "teacher", "sampling", "make", "extend", "alkali")
    sys.path.insert(0, str(ROOT / "universal"))
    try:
        return SimpleNamespace(**{name: __import__(name) for name in names})
    finally:
        sys.path.remove(str(ROOT / "universal"))
        for name in names:
            sys.modules.pop(name, None)
