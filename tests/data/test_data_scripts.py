"""Scripts that make the sets of dipoles and frameworks: reproducible by number, time limits, requirements."""

import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import read
from data_scripts import DATA, FRAMEWORKS, MOLECULES, load, missing, run


def test_a_framework_that_takes_too_long_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make = load(DATA / "pores" / "make.py")
    make.collect(tmp_path / "f.extxyz", range(2), "framework", lambda number: make.make_apart(number, 0.01))
    said = capsys.readouterr()
    assert "0 added, 2 left out" in said.out
    assert "no result in 0.01 s" in said.out
    assert not (tmp_path / "f.extxyz").exists()


@pytest.mark.slow
@pytest.mark.skipif(missing("rdkit", "tblite"), reason="rdkit or tblite is not installed")
def test_molecules_depend_on_their_number_alone(tmp_path: Path) -> None:
    script = DATA / "dipoles" / "make.py"
    assert "3 added, 0 left out" in run(script, "--number", 3, "--output", tmp_path / "a.extxyz")
    assert "1 were there, 2 added" in _cut_and_run(script, tmp_path / "a.extxyz", tmp_path / "b.extxyz")
    run(script, "--first", 2, "--number", 1, "--output", tmp_path / "c.extxyz")
    a, b, c = ((tmp_path / f"{name}.extxyz").read_text() for name in "abc")
    assert a == b
    assert a.endswith(c)
    # another RDKit may find another conformer, but the molecule is the same
    for made, kept in zip(read(tmp_path / "a.extxyz", ":"), read(MOLECULES, ":3"), strict=True):
        assert made.info["molecule"] == kept.info["molecule"]
        assert made.get_chemical_formula() == kept.get_chemical_formula()


def _cut_and_run(script: Path, whole: Path, cut: Path) -> str:
    """What the script says when the second of three frames was being written when a run was interrupted."""
    lines = whole.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[: int(lines[0]) + 5]))
    return run(script, "--number", 3, "--output", cut)


@pytest.mark.slow
@pytest.mark.skipif(missing("pormake", "pyzeo"), reason="pormake or pyzeo is not installed")
def test_frameworks_depend_on_their_number_alone(tmp_path: Path) -> None:
    script = DATA / "pores" / "make.py"
    assert "2 added, 0 left out" in run(script, "--first", 4, "--number", 2, "--output", tmp_path / "a.extxyz")
    run(script, "--first", 5, "--number", 1, "--output", tmp_path / "b.extxyz")
    assert (tmp_path / "a.extxyz").read_text().endswith((tmp_path / "b.extxyz").read_text())
    kept = {atoms.info["framework"]: atoms for atoms in read(FRAMEWORKS, ":")}
    for made in read(tmp_path / "a.extxyz", ":"):
        same = kept[made.info["framework"]]
        assert made.info["net"] == same.info["net"]
        assert made.info["value"] == pytest.approx(same.info["value"], abs=0.5)


@pytest.mark.skipif(not missing("pormake", "pyzeo"), reason="pormake and pyzeo are installed")
def test_what_is_to_be_installed() -> None:
    ended = subprocess.run(
        [sys.executable, str(DATA / "pores" / "make.py"), "--number", "1"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert "pip install pormake pyzeo" in ended.stderr
