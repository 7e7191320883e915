"""The packaged potentials give what they gave: a safety net under changes of the code."""

import json

import numpy as np
import pytest
from snapshot import FILE, answers

SNAPSHOT = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SNAPSHOT)
def test_energies_forces_and_stresses_are_those_of_before(name: str) -> None:
    """To 1e-12 eV, eV/Å and eV/Å³; kernels for other processors differ by 1e-14."""
    for label, found in answers(name).items():
        for quantity, value in SNAPSHOT[name][label].items():
            np.testing.assert_allclose(
                found[quantity], value, rtol=1e-13, atol=1e-12, err_msg=f"{name}, {label}, {quantity}"
            )
