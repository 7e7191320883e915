"""Labelled structures from the files users have: extxyz, ASE databases, or CSV tables that name structure files."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.db import connect

from ase_andersonn.labels import LabelSet
from ase_andersonn.structures.files import read_file
from ase_andersonn.structures.metadata import check_order
from ase_andersonn.structures.paths import expand


@dataclass(frozen=True)
class Entry:
    """One structure with its label.

    Attributes:
        atoms: the structure.
        target: index of the label.
        value: the quantity it comes from; nan where the file names the label itself.
        where: file and place, for error texts.
    """

    atoms: Atoms
    target: int
    value: float
    where: str


def read_entries(patterns: Sequence[str], labels: LabelSet, *, value: str, path: str) -> list[Entry]:
    """All structures of the files.

    Args:
        patterns: files or glob patterns.
        labels: what they are sorted by.
        value: key of `atoms.info`, of the results or of a database row, or column, with the quantity or the label.
        path: column of a table that names files.

    Raises:
        FileNotFoundError: for a pattern that stands for no file.
        ValueError: for a file that cannot be read, and a structure without a label or with a bad one.
    """
    entries = []
    for file in expand(patterns):
        for atoms, given, where in _rows(file, value, path):
            try:
                check_order(atoms)
                target, number = label_of(given, labels)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            entries.append(Entry(atoms, target, number, where))
    return entries


def label_of(given: Any, labels: LabelSet) -> tuple[int, float]:
    """Index of the label and the quantity, from a number or the name of a label.

    Raises:
        ValueError: for nothing, a number without a label, or a name that is not in the set.
    """
    if given is None or given == "":
        raise ValueError(f"there is no {labels.quantity}; set `value` in the config to where it is found.")
    if isinstance(given, str):
        if given in labels.labels:
            return labels.index(given), math.nan
        try:
            given = float(given)
        except ValueError as error:
            raise ValueError(f"{given!r} is neither a number nor one of {', '.join(labels.labels)}.") from error
    return labels.label_of(float(given)), float(given)


def _rows(file: Path, value: str, path: str) -> Iterator[tuple[Atoms, Any, str]]:
    if file.suffix == ".csv":
        yield from _table_rows(file, value, path)
        return
    if file.suffix == ".db":
        for row in connect(file).select():
            atoms = row.toatoms()
            yield atoms, _found(value, row.key_value_pairs, row.data, atoms), f"{file}, row {row.id}"
        return
    for index, atoms in enumerate(read_file(file)):
        yield atoms, _found(value, atoms.info, {}, atoms), f"{file}, frame {index}"


def _found(key: str, pairs: Mapping[str, Any], data: Mapping[str, Any], atoms: Atoms) -> Any:
    """A value from a structure's or row's own pairs, its data, or the results of the attached calculator."""
    for place in (pairs, data, getattr(atoms.calc, "results", {})):
        if place.get(key) is not None:
            return place[key]
    return None


def _table_rows(file: Path, value: str, path: str) -> Iterator[tuple[Atoms, Any, str]]:
    with open(file, encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        missing = [column for column in (path, value) if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{file} has no column {', '.join(map(repr, missing))}; it has {', '.join(rows.fieldnames or ())}. "
                "Name the right ones under `path` and `value` in the config."
            )
        for number, row in enumerate(rows, 2):
            where = f"{file}, line {number}"
            if not row[path] or row[value] is None:
                raise ValueError(f"{where} has no {path!r} or no {value!r}; a row needs both.")
            try:
                structures = read_file(file.parent / row[path])
            except (ValueError, OSError) as error:
                raise ValueError(f"{where}: {error}") from error
            if len(structures) != 1:
                raise ValueError(f"{where}: {row[path]} holds {len(structures)} structures; a row needs one.")
            yield structures[0], row[value], where
