"""Labels of structures read from tables, and the division into training and validation sets."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.db import connect
from ase.io import write
from crystals import crystals

from ase_andersonn.labels import ELECTRONIC
from ase_andersonn.training.classification.data import ShuffledBatches, split
from ase_andersonn.training.classification.table import Entry, read_entries


def test_all_kinds_of_tables_say_the_same(tmp_path: Path) -> None:
    frames = crystals(6)
    values = [atoms.info["value"] for atoms in frames]
    write(tmp_path / "frames.extxyz", frames)
    with connect(tmp_path / "frames.db") as database:
        for atoms in frames:
            database.write(atoms, key_value_pairs={"value": atoms.info["value"]})
    with open(tmp_path / "frames.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "value"])
        for k, atoms in enumerate(frames):
            write(tmp_path / f"{k}.cif", atoms)
            writer.writerow([f"{k}.cif", values[k]])
    for name in ("frames.extxyz", "frames.db", "frames.csv"):
        entries = read_entries([str(tmp_path / name)], ELECTRONIC, value="value", path="path")
        assert [entry.value for entry in entries] == pytest.approx(values)
        assert [entry.target for entry in entries] == [ELECTRONIC.label_of(value) for value in values]
        assert [len(entry.atoms) for entry in entries] == [len(atoms) for atoms in frames]


def test_labels_may_be_named(tmp_path: Path) -> None:
    frames = crystals(4)
    for atoms in frames:
        atoms.info["kind"] = ELECTRONIC.labels[ELECTRONIC.label_of(atoms.info.pop("value"))]
    write(tmp_path / "frames.extxyz", frames)
    entries = read_entries([str(tmp_path / "frames.extxyz")], ELECTRONIC, value="kind", path="path")
    assert [ELECTRONIC.labels[entry.target] for entry in entries] == [atoms.info["kind"] for atoms in frames]
    assert all(np.isnan(entry.value) for entry in entries)


@pytest.mark.parametrize(
    ("value", "message"), [("glass", "neither a number nor one of metal"), (-1.0, "below 0.0"), (None, "no band gap")]
)
def test_structures_without_a_label(tmp_path: Path, value: Any, message: str) -> None:
    atoms = bulk("Cu")
    atoms.info = {} if value is None else {"value": value}
    write(tmp_path / "frames.extxyz", [bulk("Cu")] if value is None else [atoms])
    with pytest.raises(ValueError, match=message) as caught:
        read_entries([str(tmp_path / "frames.extxyz")], ELECTRONIC, value="value", path="path")
    assert "frame 0" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.cif", "line 3 has no 'path' or no 'gap'"),
        (",0.5", "line 3 has no 'path'"),
        ("none.cif,0.5", r"line 3: .*none\.cif"),
    ],
)
def test_a_line_that_is_not_whole_is_named(line: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.cif", bulk("Cu"))
    (tmp_path / "table.csv").write_text(f"path,gap\na.cif,0.0\n{line}\n", encoding="utf-8")
    with pytest.raises((ValueError, OSError), match=message):
        read_entries([str(tmp_path / "table.csv")], ELECTRONIC, value="gap", path="path")


def test_a_table_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,gap\na.cif,1\n")
    with pytest.raises(ValueError, match=r"no column 'path', 'value'; it has file, gap"):
        read_entries([str(tmp_path / "t.csv")], ELECTRONIC, value="value", path="path")


@pytest.mark.parametrize("by", ["formula", "system", "none"])
def test_what_is_alike_stays_together(by: Any) -> None:
    entries = [Entry(atoms, 0, 0.0, "") for atoms in crystals(60)]
    train, held_out = split(entries, 0.25, by, 1)
    assert len(train) + len(held_out) == 60
    assert 15 <= len(held_out) <= 25
    formulas = [{e.atoms.get_chemical_formula(empirical=True) for e in part} for part in (train, held_out)]
    assert (not formulas[0] & formulas[1]) == (by != "none")
    again = split(entries, 0.25, by, 1)
    assert [id(e) for e in again[1]] == [id(e) for e in held_out]


def test_batches_hold_every_sample_once() -> None:
    batches = ShuffledBatches(20, 6, 0)
    drawn = [i for batch in batches.epoch(3) for i in batch]
    assert len(drawn) == len(set(drawn)) == 18
    assert batches.epoch(3) == batches.epoch(3) != batches.epoch(4)
    assert ShuffledBatches(3, 6, 0).epoch(0)[0].__len__() == 3
