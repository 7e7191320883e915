"""Columns of the table of a screening: names, units, digits, and the property that fills each."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["number", "text", "truth"]
Value = float | int | str | bool | None
Row = dict[str, Value]
"""One structure: values by names of columns; None where there is none."""

PROPERTIES = ("bulk_modulus", "elastic", "phonons", "label")
"""What is computed where it is asked for; all else always is, as far as the calculator has it."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: as in filters and files.
        kind: of its values.
        unit: empty for numbers without one.
        decimals: to which numbers are rounded; 0 for whole numbers.
        needs: the property that fills it; empty where it always is there, `"hull"` with reference entries.
        meaning: in words.
    """

    name: str
    kind: Kind
    unit: str
    decimals: int
    needs: str
    meaning: str


COLUMNS = (
    Column("rank", "number", "", 0, "", "place among the selected structures"),
    Column("name", "text", "", 0, "", "of the structure: its file, and place there"),
    Column("status", "text", "", 0, "", "ok, incomplete, unconverged, duplicate or failed"),
    Column("selected", "truth", "", 0, "", "whether all filters hold"),
    Column("formula", "text", "", 0, "", "reduced"),
    Column("n_atoms", "number", "", 0, "", "atoms of the cell"),
    Column("space_group", "text", "", 0, "", "of the relaxed crystal, to 0.01 Å"),
    Column("energy_per_atom", "number", "eV/atom", 6, "", "relaxed energy"),
    Column("volume_per_atom", "number", "Å³/atom", 4, "", "relaxed volume"),
    Column("volume_change", "number", "", 5, "", "relaxed volume over given volume, less 1"),
    Column("fmax", "number", "eV/Å", 5, "", "largest force that is left"),
    Column("steps", "number", "", 0, "", "of the relaxation"),
    Column("e_above_hull", "number", "eV/atom", 6, "hull", "above the hull of the references; negative below it"),
    Column("bulk_modulus", "number", "GPa", 3, "bulk_modulus", "of the Birch–Murnaghan fit"),
    Column("bulk_modulus_derivative", "number", "", 3, "bulk_modulus", "of the Birch–Murnaghan fit"),
    Column("fit_holds", "truth", "", 0, "bulk_modulus", "whether the Birch–Murnaghan equation holds"),
    Column("elastic_bulk_modulus", "number", "GPa", 3, "elastic", "Hill's average"),
    Column("shear_modulus", "number", "GPa", 3, "elastic", "Hill's average"),
    Column("anisotropy", "number", "", 3, "elastic", "universal index; 0 for isotropic crystals"),
    Column("mechanically_stable", "truth", "", 0, "elastic", "whether the elastic tensor is positive (Born)"),
    Column("lowest_frequency", "number", "THz", 3, "phonons", "of the phonons; negative for imaginary ones"),
    Column("dynamically_stable", "truth", "", 0, "phonons", "whether no phonon is imaginary"),
    Column("label", "text", "", 0, "label", "the classifier's most probable label"),
    Column("label_probability", "number", "", 4, "label", "of that label"),
    Column("label_out_of_distribution", "number", "", 3, "label", "above 1 beyond the classifier's training data"),
    Column("extrapolation", "number", "", 3, "", "out-of-distribution number, mean; above 1 beyond training"),
    Column("largest_extrapolation", "number", "", 3, "", "the same of the atom farthest out"),
    Column("energy_std", "number", "eV/atom", 6, "", "standard deviation over the members of a committee"),
    Column("duplicate_of", "text", "", 0, "", "the structure of which this is a duplicate"),
    Column("error", "text", "", 0, "", "what went wrong"),
)
BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}
OPTIONAL = ("extrapolation", "largest_extrapolation", "energy_std")
"""Left out of the table where no structure has them."""


def columns_for(properties: Collection[str], hull: bool) -> list[Column]:
    """The columns that some properties fill."""
    wanted = {"", *properties, *(["hull"] if hull else [])}
    return [column for column in COLUMNS if column.needs in wanted]


def rounded(column: Column, value: Any) -> Value:
    """A value as it stands in the table."""
    if value is None or column.kind != "number":
        return value  # type: ignore[no-any-return]
    if column.decimals == 0:
        return int(value)
    return round(float(value), column.decimals) + 0.0  # −0 is 0
