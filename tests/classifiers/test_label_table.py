"""Tables of labels written by `andersonn classify` (CSV, JSON, ASE database), also where writing fails."""

import csv
import errno
import json
import os
from pathlib import Path

import pytest
from ase.db import connect
from command_line import run

from ase_andersonn.cli.label_table import write_answers
from ase_andersonn.labels import ELECTRONIC


@pytest.mark.parametrize("suffix", ["csv", "json", "db"])
def test_classify_writes_a_table(folder: Path, suffix: str) -> None:
    out = folder / f"out.{suffix}"
    code, text = run(
        "classify", folder / "in", "--model", folder / "model.safetensors", "--out", out, "--device", "cpu"
    )
    assert code == 1, "some failed"
    assert "metal" in text
    assert text.count("failed: ") == 3
    for name in ("broken.cif", "broken.xyz", "c.extxyz#2"):
        assert name in text
    if suffix == "db":
        assert connect(out).count() == 5
        assert {row.label for row in connect(out).select()} <= set(ELECTRONIC.labels)
        return
    table = json.loads(out.read_text()) if suffix == "json" else list(csv.DictReader(out.open()))
    assert len(table) == 8
    assert sum(bool(row["error"]) for row in table) == 3
    for row in table:
        if not row["error"]:
            assert sum(float(row[f"p({label})"]) for label in ELECTRONIC.labels) == pytest.approx(1.0)


def test_a_table_is_no_structure_of_its_folder_and_replaces_no_input(folder: Path) -> None:
    model, out = folder / "model.safetensors", folder / "in" / "labels.db"
    counts = []
    for _ in range(2):
        code, _ = run("classify", folder / "in", "--model", model, "--out", out)
        assert code == 1, "some failed"
        counts.append(connect(out).count())
    assert counts == [5, 5]
    before = out.read_bytes()
    code, text = run("classify", out, "--model", model, "--out", out)
    assert code == 1
    assert "one of the files to be read" in text
    assert out.read_bytes() == before
    assert not list(out.parent.glob(".labels*"))
    out.unlink()


@pytest.mark.parametrize("suffix", ["csv", "json", "db"])
def test_a_name_that_is_no_utf_8_is_a_row(folder: Path, suffix: str) -> None:
    try:
        os.rename(folder / "in" / "a.cif", os.fsencode(folder / "in") + b"/caf\xe9.cif")
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    out = folder / f"out.{suffix}"
    code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--out", out)
    assert code == 1, text
    if suffix == "db":
        names = [row.data["name"] for row in connect(out).select()]
    else:
        table = json.loads(out.read_text()) if suffix == "json" else list(csv.DictReader(out.open()))
        names = [row["name"] for row in table if not row["error"]]
    assert len(names) == 5
    assert any(name.endswith("caf\\xe9.cif") for name in names)


def test_surrogates_in_names_and_errors_are_escaped(tmp_path: Path) -> None:
    for suffix in ("csv", "json"):
        write_answers(tmp_path / f"a.{suffix}", ["caf\udce9"], [ValueError("caf\udce9 is bad")], [])
        assert (tmp_path / f"a.{suffix}").read_text(encoding="utf-8").count("\\udce9") == 2


@pytest.mark.parametrize("suffix", ["csv", "json", "db"])
def test_a_full_disk_loses_no_answer(folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """The table is kept among the temporary files; where that is not possible either, it is shown."""
    model, out = folder / "model.safetensors", folder / f"out.{suffix}"
    (folder / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
    full = [folder]

    def atomic_write(path: Path, data: bytes) -> None:
        if path.parent in full:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr("ase_andersonn.cli.label_table.atomic_write", atomic_write)
    code, text = run("classify", folder / "in", "--model", model, "--out", out)
    assert code == 1
    assert "No space left on device" in text
    assert "mean confidence" in text
    (kept,) = (folder / "temporary").glob(f"*/labels.{suffix}")
    assert str(kept) in text
    assert kept.stat().st_size
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: (_ for _ in ()).throw(OSError("No usable temporary directory")))
    monkeypatch.setattr("ase_andersonn.cli.label_table._as_database", lambda *_: b"")
    code, text = run("classify", folder / "in", "--model", model, "--out", out)
    assert code == 1
    assert sum(f"{folder / 'in'}" in line and "error" not in line for line in text.splitlines()) >= 5


def test_a_place_where_nothing_can_be_written_is_reported_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "labels.csv").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--out", folder / "labels.csv")
    assert code == 1
    assert text.splitlines()[0].endswith(
        "labels.csv cannot be written: it is a folder. The table will be kept elsewhere."
    )
    (kept,) = folder.glob("andersonn-*/labels.csv")
    assert len(list(csv.DictReader(kept.open()))) == 8
    code, text = run("classify", folder / "in", "--plot", folder / "labels.csv")
    assert (code, "unknown ending" in text) == (1, True)
