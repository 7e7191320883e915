"""`andersonn classify`: which files are read, exit codes, plots."""

import csv
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from command_line import run

from ase_andersonn.classifier import UNCERTAIN, Prediction
from ase_andersonn.cli.label_picture import write_picture
from ase_andersonn.cli.label_table import named_structures
from ase_andersonn.labels import POLARITY


def test_classify_draws_a_picture(folder: Path) -> None:
    picture = folder / "in" / "labels.png"
    for _ in range(2):  # the picture of the first is no structure of the second
        code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--plot", picture)
        assert code == 1, "some failed"
        assert text.count("failed: ") == 3
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    code, text = run("classify", folder / "in", "--model", folder / "model.safetensors", "--plot", "no/labels.png")
    assert code == 1
    assert "there is no folder" in text
    assert "metal" not in text


def test_a_picture_of_two_labels_and_of_none(tmp_path: Path) -> None:
    weak, strong = POLARITY.labels
    answers = [
        Prediction(weak, {weak: 0.9, strong: 0.1}, weak, 0.9, 0.5),
        Prediction(UNCERTAIN, {weak: 0.5, strong: 0.5}, weak, 0.5, 2.0),
    ]
    write_picture(tmp_path / "two.png", ["a", "b", "c"], [*answers, ValueError("bad")], POLARITY, 0.7)
    assert (tmp_path / "two.png").stat().st_size
    with pytest.raises(ValueError, match="no structure has a label"):
        write_picture(tmp_path / "none.png", ["c"], [ValueError("bad")], POLARITY)
    assert not (tmp_path / "none.png").exists()


def test_folders_in_a_folder_are_read_and_notes_are_not(folder: Path) -> None:
    for name in ("more/deep", ".hidden"):
        (folder / "in" / name).mkdir(parents=True)
        write(folder / "in" / name / "e.cif", bulk("Si"))
    (folder / "in" / "notes.txt").write_text("of the day")
    names: list[str] = []
    assert len(list(named_structures([str(folder / "in")], names))) == 9
    assert sum("e.cif" in name for name in names) == 1
    assert not any("notes" in name for name in names)


def test_an_empty_folder_is_an_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    code, text = run("classify", folder / "empty", "--model", folder / "model.safetensors")
    assert (code, "there is no structure in" in text) == (1, True), text


def test_classify_fails_if_any_failed(folder: Path) -> None:
    model = folder / "model.safetensors"
    code, text = run("classify", folder / "in" / "broken.cif", "--model", model)
    assert code == 1
    assert text.count("broken.cif") == 1
    assert "failed: " in text
    code, text = run("classify", folder / "in" / "*.xyz", "--model", model, "--confidence", 1.0)
    assert code == 1, "one of them failed"
    assert UNCERTAIN in text
    code, _ = run("classify", folder / "in" / "a.cif", "--model", model)
    assert code == 0
    code, text = run("classify", folder / "in", "--model", model, "--out", folder / "out.txt")
    assert code == 1
    assert "unknown ending" in text
    code, text = run("classify", folder / "in", "--labels", "colour")
    assert code == 1
    assert "no label set 'colour'" in text


def test_where_all_failed_there_is_no_table_of_zeros(folder: Path) -> None:
    code, text = run("classify", folder / "in" / "broken.cif", "--model", folder / "model.safetensors")
    assert code == 1
    assert len(text.splitlines()) == 1
    assert text.startswith("failed: ")


def test_every_structure_of_every_file_is_labelled(folder: Path) -> None:
    for name in ("several.cif", "several.db", "XDATCAR"):
        write(folder / "in" / name, [bulk("Si")] * 3)
    names: list[str] = []
    assert len(list(named_structures([str(folder / "in")], names))) == 8 + 9
    assert sum("several.cif#" in name for name in names) == 3


@pytest.mark.slow
def test_ten_broken_files_in_a_thousand(folder: Path) -> None:
    (folder / "many").mkdir()
    for k in range(1000):
        write(folder / "many" / f"{k:03d}.cif", bulk("Cu", a=3.0 + 0.001 * k))
    broken = [f"{k:03d}.cif" for k in range(3, 1000, 100)]
    for name in broken:
        (folder / "many" / name).write_text((folder / "many" / name).read_text()[:200])
    out = folder / "out.csv"
    code, text = run("classify", folder / "many", "--model", folder / "model.safetensors", "--out", out)
    assert code == 1, "ten failed"
    assert text.count("failed: ") == len(broken)
    assert all(f"{name} cannot be read" in text for name in broken)
    table = list(csv.DictReader(out.open()))
    assert len(table) == 1000
    assert [Path(row["name"]).name for row in table if row["error"]] == broken
