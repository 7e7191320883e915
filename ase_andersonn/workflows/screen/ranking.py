"""Rows of the table of a screening, and their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from .columns import BY_NAME, OPTIONAL, Column, Row, rounded
from .duplicates import reduced_formula
from .expressions import Filter
from .hull import Hull
from .work import StructureResult

STATUS_ORDER = ("ok", "incomplete", "unconverged", "duplicate", "failed")
"""Order in which the table lists the rows of each status."""


@dataclass(frozen=True)
class Candidate:
    """A structure to be screened: its name, and the structure, or the error met in reading it."""

    name: str
    atoms: Atoms | None
    error: str = ""


@dataclass(frozen=True)
class Screening:
    """Result of a screening: a ranked table of structures.

    Attributes:
        folder: holds `table.csv`, `table.json`, `table.db`, `relaxed.xyz` and `report.html`.
        columns: columns of the table, with their units.
        rows: in the order of the table; each maps names of columns to values, None where a value is missing.
        structures: the relaxed structure of each row, or None.
        curves: data of the report's plots, for each row.
        sort: name of the column by which the rows are ranked.
    """

    folder: Path
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    structures: tuple[Atoms | None, ...]
    curves: tuple[Mapping[str, Any], ...]
    sort: str

    @property
    def selected(self) -> tuple[Row, ...]:
        """The rows that pass all filters, by rank."""
        return tuple(row for row in self.rows if row["selected"])


def table_row(
    index: int,
    candidates: Sequence[Candidate],
    copies: Mapping[int, int],
    result: StructureResult | None,
    columns: Sequence[Column],
    hull: Hull | None,
) -> Row:
    """Row of one structure: the values its columns have, its status and its errors.

    Args:
        index: of the structure among the candidates.
        candidates: all structures that were given.
        copies: for each duplicate, the index of the structure it duplicates.
        result: what was computed; None for duplicates and for structures that could not be read.
        columns: of the table.
        hull: of the references, if any.
    """
    own = candidates[index]
    row: Row = dict.fromkeys((column.name for column in columns), None)
    row |= {"name": own.name, "selected": False}
    if own.atoms is None:
        return row | {"status": "failed", "error": own.error}
    row |= {"formula": reduced_formula(own.atoms), "n_atoms": len(own.atoms)}
    if result is None:
        return row | {"status": "duplicate", "duplicate_of": candidates[copies[index]].name}
    row |= {name: rounded(BY_NAME[name], value) for name, value in result["values"].items()}
    errors = dict(result["errors"])
    if hull is not None and result["converged"]:
        try:
            above = hull.above(own.atoms, result["values"]["energy_per_atom"])
            row["e_above_hull"] = rounded(BY_NAME["e_above_hull"], above)
        except ValueError as error:
            errors["e_above_hull"] = str(error)
    status = "ok" if not errors else "incomplete" if result["converged"] else "unconverged"
    if result["atoms"] is None or row["energy_per_atom"] is None:
        status = "failed"
    texts = [text if name == "relaxation" else f"{name}: {text}" for name, text in errors.items()]
    return row | {"status": status, "error": "; ".join(texts) or None}


def ranked(
    folder: Path,
    columns: Sequence[Column],
    rows: Sequence[Row],
    results: Mapping[int, StructureResult],
    conditions: Sequence[Filter],
    sort: str,
    descending: bool,
) -> Screening:
    """The screening with its rows ordered: selected ones first, then by status; then by the column `sort`.

    Missing values come last; rows with equal values keep the order in which their structures were given.
    """
    for row in rows:
        row["selected"] = row["status"] in ("ok", "incomplete") and all(condition(row) for condition in conditions)
    present = [k for k, row in enumerate(rows) if row[sort] is not None]
    by_value = sorted(present, key=lambda k: rows[k][sort], reverse=descending)  # type: ignore[arg-type,return-value]
    places = {value: place for place, value in enumerate(dict.fromkeys(rows[k][sort] for k in by_value))}
    last = len(places)

    def place(k: int) -> tuple[int, int, int]:
        status = STATUS_ORDER.index(str(rows[k]["status"]))
        return (0 if rows[k]["selected"] else 1 + max(status, 1)), places.get(rows[k][sort], last), k

    order = sorted(range(len(rows)), key=place)
    for rank, k in enumerate((k for k in order if rows[k]["selected"]), start=1):
        rows[k]["rank"] = rank
    absent = {name for name in OPTIONAL if all(row[name] is None for row in rows)}
    kept = tuple(column for column in columns if column.name not in absent)
    return Screening(
        folder,
        kept,
        tuple({column.name: rows[k][column.name] for column in kept} for k in order),
        tuple(_atoms(results[k]["atoms"]) if k in results else None for k in order),
        tuple(results[k]["curves"] if k in results else {} for k in order),
        sort,
    )


def _atoms(data: Any) -> Atoms | None:
    return None if data is None else Atoms(data["symbols"], data["positions"], cell=data["cell"], pbc=data["pbc"])
