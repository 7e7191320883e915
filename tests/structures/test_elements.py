"""Names of elements in messages and tables."""

import pytest

from ase_andersonn.structures.elements import element_names


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((79, 1), "H, Au"),
        ((6, 7, 8, 9), "C, N, O, F"),
        ((14, *range(5, 10)), "B–F, Si"),
        (range(1, 84), "H–Bi"),
        ((0, 200), "Z=0, Z=200"),
    ],
)
def test_element_names(numbers: tuple[int, ...], text: str) -> None:
    assert element_names(numbers) == text
