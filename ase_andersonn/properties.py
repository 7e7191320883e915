"""Names, shapes and units of every input and output, in one place.

``andersonn info`` prints what the calculator returns, and the conformance checks hold arrays against it with
`check_shapes`. A symbol in a shape is one of the package's words: ``n_atoms``, ``n_edges``, ``n_systems``,
``n_neighbors``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

Shape = tuple[int | str, ...]


class HasShape(Protocol):
    """A numpy array, a tensor, or anything else with a shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Field:
    """One quantity: its name, its shape in symbols, its unit ("" = none) and what it means."""

    name: str
    shape: Shape
    unit: str
    meaning: str

    def __str__(self) -> str:
        shape = ", ".join(str(size) for size in self.shape)
        return f"{self.name} [{shape}] {self.unit}".rstrip() if self.shape else f"{self.name} {self.unit}".rstrip()


@dataclass(frozen=True)
class Property:
    """A label that potentials are trained on.

    Attributes:
        name: key of its loss, errors and tables.
        unit: unit of its errors; an extensive property is divided by the number of atoms first.
        printed_unit: unit of its errors in tables.
        factor: printed value of one `unit`.
        min_std: `unit`; a smaller standard deviation of labels is that of relaxed frames.
        extensive: whether it grows with the number of atoms.
    """

    name: str
    unit: str
    printed_unit: str
    factor: float
    min_std: float
    extensive: bool = False


KBAR_OF_EV_PER_A3 = 1602.1766208
LABELS = (
    Property("energy", "eV/atom", "meV/atom", 1e3, 1e-3, extensive=True),
    Property("forces", "eV/Å", "meV/Å", 1e3, 1e-2),
    Property("stress", "eV/Å³", "GPa", 0.1 * KBAR_OF_EV_PER_A3, 1e-4),
)
"""Labels of potentials, in the order of tables and files."""

# What the ASE calculator returns, in ASE's names and shapes.
RESULTS = (
    Field("energy", (), "eV", "equilibrium energy L = E(z) + <lambda, f(z) - z>"),
    Field("free_energy", (), "eV", "the same number; there is no electronic entropy"),
    Field("energies", ("n_atoms",), "eV", "per-atom terms of the energy"),
    Field("forces", ("n_atoms", 3), "eV/Å", "-dL/dx"),
    Field("stress", (6,), "eV/Å^3", "(1/V) dL/dstrain, Voigt order xx yy zz yz xz xy; 3-D periodic cells only"),
    Field("stresses", ("n_atoms", 6), "eV/Å^3", "per-atom terms of the stress; they sum to it"),
)

# What the ASE calculator has in `diagnostics` beside what the calculation cost, of models that know their training.
DIAGNOSTICS = (
    Field(
        "extrapolation",
        ("n_atoms",),
        "",
        "squared distance of an atom's surroundings from those of training; 0 in their middle, 1 in the mean over the "
        "atoms of the training structure that is farthest out",
    ),
)


def field(name: str, fields: Iterable[Field]) -> Field:
    """The field of that name; KeyError naming the nearest one where there is none."""
    by_name = {entry.name: entry for entry in fields}
    if name not in by_name:
        near = get_close_matches(name, by_name, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "known names: " + ", ".join(by_name)
        raise KeyError(f"no field {name!r}; {hint}")
    return by_name[name]


def check_shapes(values: Mapping[str, HasShape], fields: Iterable[Field]) -> dict[str, int]:
    """Hold arrays against the table and return the sizes found, e.g. ``{"n_atoms": 8}``.

    A symbol has to stand for the same number in all of ``values``. Raises KeyError for a name the table does not have
    and ValueError for a wrong shape.
    """
    fields = tuple(fields)
    sizes: dict[str, int] = {}
    for name, value in values.items():
        entry, given = field(name, fields), tuple(value.shape)
        expected = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in entry.shape)
        if len(given) != len(expected) or any(
            isinstance(e, int) and e != g for e, g in zip(expected, given, strict=True)
        ):
            raise ValueError(f"{name} has shape {given}; expected {entry}, with {sizes or 'no size known yet'}")
        sizes.update({symbol: g for symbol, g in zip(entry.shape, given, strict=True) if isinstance(symbol, str)})
    return sizes
