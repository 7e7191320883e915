"""The packaged default model, for properties."""

import pytest

from ase_andersonn import AndersoNN
from ase_andersonn.pretrained.catalog import DEFAULT_MODEL, packaged_models

needs_default_model = pytest.mark.skipif(
    DEFAULT_MODEL not in packaged_models(), reason=f"the default model {DEFAULT_MODEL!r} is not packaged"
)


def tight() -> AndersoNN:
    """A calculator whose forces are as exact as derivatives of properties want them."""
    return AndersoNN(dtype="float64", tol=1e-9, compile=False, device="cpu")
