"""The table of fields agrees with ASE's own, and arrays are held against it."""

import numpy as np
import pytest
from ase.outputs import all_outputs

from ase_andersonn import properties as fields
from ase_andersonn.properties import Field, check_shapes, field

BATCH = (
    Field("energy", ("n_systems",), "eV", "energy of each structure"),
    Field("energies", ("n_atoms",), "eV", "per-atom terms of the energy"),
    Field("forces", ("n_atoms", 3), "eV/Å", "-dL/dx"),
    Field("stress", ("n_systems", 3, 3), "eV/Å^3", "(1/V) dL/dstrain"),
)


@pytest.mark.parametrize("entry", fields.RESULTS, ids=lambda entry: entry.name)
def test_results_have_the_shapes_ase_gives_them(entry: fields.Field) -> None:
    assert tuple("n_atoms" if size == "natoms" else size for size in all_outputs[entry.name].shapespec) == entry.shape


@pytest.mark.parametrize("group", [fields.RESULTS, fields.LABELS, fields.DIAGNOSTICS])
def test_names_are_unique(group: tuple[fields.Field | fields.Property, ...]) -> None:
    assert len({entry.name for entry in group}) == len(group)


def test_labels_are_results_of_the_calculator() -> None:
    for label in fields.LABELS:
        unit = field(label.name, fields.RESULTS).unit.replace("^3", "³")
        assert label.unit == (f"{unit}/atom" if label.extensive else unit)


def test_sizes_are_found() -> None:
    values = {"energy": np.zeros(2), "forces": np.zeros((5, 3)), "stress": np.zeros((2, 3, 3))}
    assert check_shapes(values, BATCH) == {"n_systems": 2, "n_atoms": 5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"forces": np.zeros((5, 2))}, r"forces has shape \(5, 2\); expected forces \[n_atoms, 3\] eV/Å"),
        ({"forces": np.zeros(5)}, r"forces has shape \(5,\)"),
        ({"energies": np.zeros(4), "forces": np.zeros((5, 3))}, "n_atoms': 4"),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_the_right_one(values: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_shapes(values, BATCH)


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'forces'"):
        field("force", fields.RESULTS)
