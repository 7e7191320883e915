"""Which part of the set a formula belongs to: functions of the reduced formula alone.

h(s) = the integer of MD5(s) mod 100. A formula F (reduced, Hill order, as ASE writes it) is in the test part where
h("p" + F) < 8, in the validation part where it is below 12, else in the training part; of the property benchmarks'
formulas those with h(F) < 25 are in no part at all.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal, get_args

from ase import Atoms

Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
TEST, VALID, HELD_OUT = 8, 4, 25
"""Per cent of the formulas; the last of those of the benchmarks."""


def formula(atoms: Atoms) -> str:
    """The reduced formula; Na4Cl4 is ClNa."""
    return str(atoms.get_chemical_formula(empirical=True))


def percentile(text: str) -> int:
    """0 to 99, the same on every machine."""
    return int(hashlib.md5(text.encode()).hexdigest(), 16) % 100


def part_of(name: str) -> Part:
    """The part that structures of this formula belong to."""
    place = percentile("p" + name)
    return "test" if place < TEST else "valid" if place < TEST + VALID else "train"


def held_out(benchmark: Iterable[str]) -> frozenset[str]:
    """The formulas of a property benchmark that stand in no part, so that it can be measured on them."""
    return frozenset(name for name in benchmark if percentile(name) < HELD_OUT)
