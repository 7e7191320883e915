"""The table of a screening as CSV, JSON and ASE database, and the relaxed structures as extended XYZ."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_andersonn.atomic_write import atomic_write

if TYPE_CHECKING:
    from .ranking import Screening

FILES = ("table.csv", "table.json", "table.db", "relaxed.xyz", "report.html")


def write_tables(found: "Screening") -> None:
    """Write the files, each whole, in the place of those that are there."""
    texts = {"table.csv": _csv(found), "table.json": _json(found), "relaxed.xyz": _xyz(found)}
    for name, text in texts.items():
        atomic_write(found.folder / name, text.encode(errors="backslashreplace"))
    atomic_write(found.folder / "table.db", _database(found))


def _csv(found: "Screening") -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [column.name for column in found.columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found.rows)
    return stream.getvalue()


def _json(found: "Screening") -> str:
    return json.dumps(found.rows, indent=1, ensure_ascii=False) + "\n"


def _xyz(found: "Screening") -> str:
    from ase.io import write

    stream = io.StringIO()
    for row, atoms in zip(found.rows, found.structures, strict=True):
        if atoms is not None:
            labelled = atoms.copy()
            labelled.info = _values(row, ("name", "rank", "status", "formula", "energy_per_atom"))
            write(stream, labelled, format="extxyz")
    return stream.getvalue()


def _database(found: "Screening") -> bytes:
    from ase.db import connect

    reserved = ("name", "formula", "energy", "fmax", "rank")  # ASE's own
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.db"
        with connect(path) as database:
            for row, atoms in zip(found.rows, found.structures, strict=True):
                if atoms is not None:
                    names = [column.name for column in found.columns if column.name not in reserved]
                    values = {k: v for k, v in _values(row, names).items() if isinstance(v, bool | int | float)}
                    texts = {k: row[k] for k in ("status", "label") if row.get(k)}
                    database.write(atoms, key_value_pairs={**values, **texts}, data=dict(row))
        return path.read_bytes()


def _values(row: Any, names: Any) -> dict[str, Any]:
    return {name: row[name] for name in names if row.get(name) is not None}
