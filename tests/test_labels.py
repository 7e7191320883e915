"""Label sets: every value has one label, and sets that make no sense are refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.config import from_dict, to_dict
from ase_andersonn.labels import ELECTRONIC, LABEL_SETS, POLARITY, PORE_SIZE, PORE_SIZE_3, LabelSet, label_set


@pytest.mark.parametrize(
    ("labels", "value", "name"),
    [
        (ELECTRONIC, 0.0, "metal"),
        (ELECTRONIC, 1e-4, "semiconductor"),
        (ELECTRONIC, 3.0, "semiconductor"),
        (ELECTRONIC, 3.1, "insulator"),
        (ELECTRONIC.at(2.0), 2.5, "insulator"),
        (ELECTRONIC.at(4.0), 3.9, "semiconductor"),
        (POLARITY, 2.5, "weakly polar"),
        (POLARITY, 2.6, "strongly polar"),
        (PORE_SIZE, 6.0, "large pores"),
        (PORE_SIZE_3, 6.0, "medium pores"),
    ],
)
def test_labels_of_values(labels: LabelSet, value: float, name: str) -> None:
    assert labels.labels[labels.label_of(value)] == name
    assert labels.index(name) == labels.label_of(value)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_labels_rise_with_the_value(a: float, b: float) -> None:
    for labels in LABEL_SETS.values():
        assert (labels.label_of(a) <= labels.label_of(b)) == (a <= b or labels.label_of(a) == labels.label_of(b))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1])
def test_values_without_a_label(value: float) -> None:
    with pytest.raises(ValueError, match="band gap"):
        ELECTRONIC.label_of(value)


def test_sets_by_name_and_as_data() -> None:
    assert label_set("electronic") is ELECTRONIC
    assert label_set("electronic", (2.0,)) == ELECTRONIC.at(2)
    assert label_set("pore-size-3", (4.0, 9.0)).thresholds == (4.0, 9.0)
    for labels in LABEL_SETS.values():
        assert from_dict(LabelSet, to_dict(labels)) == labels
        assert len(labels) == len(labels.labels)
    with pytest.raises(ValueError, match="electronic, polarity, pore-size"):
        label_set("colour")
    with pytest.raises(ValueError, match="metal, semiconductor, insulator"):
        ELECTRONIC.index("glass")


@pytest.mark.parametrize(
    ("labels", "thresholds", "message"),
    [
        (("a",), (), "at least two"),
        (("a", "a"), (1.0,), "all different"),
        (("a", ""), (1.0,), "none empty"),
        (("a", "b"), (1.0, 2.0), "need 1 thresholds"),
        (("a", "b", "c"), (2.0, 1.0), "ascending"),
        (("a", "b"), (math.nan,), "finite"),
    ],
)
def test_what_makes_no_set(labels: tuple[str, ...], thresholds: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSet("test", labels, thresholds, "eV")


def test_thresholds_are_moved_within_reason() -> None:
    with pytest.raises(ValueError, match="3 thresholds were given"):
        ELECTRONIC.at(1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match="below the minimum"):
        ELECTRONIC.at(-1.0, 2.0)
