"""The report of a screening: one HTML file that needs no network, with a table, plots, and a section a structure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.workflows.eos import birch_murnaghan

from . import svg
from .columns import Column, Row

if TYPE_CHECKING:
    from .ranking import Screening

TEMPLATE = Path(__file__).with_name("report.html")
IN_SECTIONS = ("rank", "name", "selected")
"""Columns that a section says elsewhere."""


def write_report(found: "Screening", filters: Sequence[str]) -> None:
    """Write `report.html`, whole, in the place of one that is there.

    Args:
        found: the screening.
        filters: the expressions.
    """
    import jinja2

    # Names of files are whatever a user has: all text is escaped.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    numeric = [k for k, column in enumerate(found.columns) if column.kind == "number" and column.name != "rank"]
    text = template.render(
        columns=found.columns,
        rows=[[row[column.name] for column in found.columns] for row in found.rows],
        shown=[[shown(column, row[column.name]) for column in found.columns] for row in found.rows],
        selected=[bool(row["selected"]) for row in found.rows],
        names=[row["name"] for row in found.rows],
        name_column=[column.name for column in found.columns].index("name"),
        numeric=numeric,
        counts=Counter(str(row["status"]) for row in found.rows),
        n_selected=len(found.selected),
        sort=found.sort,
        filters=list(filters),
        sections=[
            _section(*entry, found.columns) for entry in zip(found.rows, found.structures, found.curves, strict=True)
        ],
    )
    atomic_write(found.folder / "report.html", text.encode(errors="xmlcharrefreplace"))


def shown(column: Column, value: Any) -> str:
    """A value as it stands in the report."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{column.decimals}f}" if column.kind == "number" else str(value)


def _section(
    row: Row, atoms: Atoms | None, curves: Mapping[str, Any], columns: Sequence[Column]
) -> dict[str, Any] | None:
    """Values and pictures of a structure; None for one that nothing was computed of."""
    if atoms is None:
        return None
    facts = [
        (column, shown(column, row[column.name]))
        for column in columns
        if column.name not in IN_SECTIONS and row[column.name] is not None
    ]
    pictures = [("", svg.cell(atoms)), *_pictures(curves, len(atoms))]
    return {
        "facts": facts,
        "pictures": [(title, picture) for title, picture in pictures if picture],
        "tensor": curves.get("elastic"),
        "probabilities": curves.get("label"),
        "cell": [f"{value:.4f}" for value in atoms.cell.cellpar()] if atoms.cell.rank else None,
    }


def _pictures(curves: Mapping[str, Any], n_atoms: int) -> list[tuple[str, str]]:
    pictures = []
    relaxation = curves.get("relaxation")
    if relaxation and len(relaxation["energies"]) > 1:
        energies = (np.array(relaxation["energies"]) - relaxation["energies"][-1]) / n_atoms
        series = [svg.Series(relaxation["steps"], energies.tolist())]
        pictures.append(("Relaxation", svg.curve(series, "step", "energy above the last, eV/atom")))
    if equation := curves.get("bulk_modulus"):
        volumes, fit = np.array(equation["volumes"]), equation["fit"]
        fine = np.linspace(volumes[0], volumes[-1], 60)
        line = (birch_murnaghan(fine, *fit) - fit[0]) / n_atoms
        points = (np.array(equation["energies"]) - fit[0]) / n_atoms
        series = [
            svg.Series((fine / n_atoms).tolist(), line.tolist()),
            svg.Series((volumes / n_atoms).tolist(), points.tolist(), "dots"),
        ]
        pictures.append(("Equation of state", svg.curve(series, "volume, Å³/atom", "energy, eV/atom")))
    if segments := curves.get("phonons"):
        pictures.append(("Phonons", svg.bands(segments)))
    return pictures
