"""The table of fields agrees with ASE's own, and arrays are held against it."""

import numpy as np
import pytest
from ase.outputs import all_outputs

from ase_andersonn import properties as fields
from ase_andersonn.properties import check_shapes, field, table

GROUPS = {name: getattr(fields, name) for name in ("STRUCTURE", "EDGES", "GRAPH", "RESULTS", "EVALUATION")}


@pytest.mark.parametrize("entry", fields.RESULTS, ids=lambda entry: entry.name)
def test_results_have_the_shapes_ase_gives_them(entry: fields.Field) -> None:
    assert tuple("n_atoms" if size == "natoms" else size for size in all_outputs[entry.name].shapespec) == entry.shape


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_names_are_unique_and_every_field_is_in_the_table(group: tuple[fields.Field, ...]) -> None:
    assert len({entry.name for entry in group}) == len(group)
    assert all(f"| `{entry.name}` |" in table(group) for entry in group)


def test_sizes_are_found() -> None:
    values = {"energy": np.zeros(2), "forces": np.zeros((5, 3)), "stress": np.zeros((2, 3, 3))}
    assert check_shapes(values, fields.EVALUATION) == {"n_systems": 2, "n_atoms": 5}


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
        check_shapes(values, fields.EVALUATION)


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'forces'"):
        field("force", fields.RESULTS)
