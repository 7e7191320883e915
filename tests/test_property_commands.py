"""Commands for properties: one line a structure, results as JSON, clear errors, nothing half-written."""

import json
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import read, write
from typer.testing import CliRunner

from ase_andersonn.cli import app

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("Si.cif", bulk("Si", a=5.5))
    write("Cu.vasp", bulk("Cu", a=3.7))
    Path("bad.cif").write_text("junk")
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, list(arguments))
    return found.exit_code, found.stdout, found.stderr


def test_single_points_of_several_files_one_of_them_broken(folder: Path) -> None:
    status, out, err = run("singlepoint", "Si.cif", "Cu.vasp", "bad.cif", "--out", "found.json")
    assert status == 0
    assert [line.split(":")[0] for line in out.splitlines()] == ["Si.cif", "Cu.vasp"]
    assert err.count("failed: bad.cif") == 1
    silicon, copper, bad = json.loads(Path("found.json").read_text())
    assert silicon["energy_per_atom"] == pytest.approx(-5.42, abs=0.02)
    assert len(copper["stress"]) == 6
    assert "error" in bad


def test_molecules_have_no_stress(folder: Path) -> None:
    write("water.xyz", molecule("H2O"))
    status, out, _ = run("singlepoint", "water.xyz", "--model", "organic", "--json")
    assert status == 0
    (found,) = json.loads(out)
    assert found["stress"] is None
    assert len(found["forces"]) == 3


def test_relaxed_structures_are_written(folder: Path) -> None:
    status, out, err = run("relax", "Cu.vasp", "Si.cif", "bad.cif", "--structures", "relaxed.xyz", "--pressure", "0")
    assert status == 0
    assert "Cu.vasp: " in out
    assert "failed: bad.cif" in err
    copper, silicon = read("relaxed.xyz", ":")
    assert copper.get_volume() == pytest.approx(12.02, abs=0.1)
    assert abs(silicon.get_forces()).max() < 0.01


def test_equation_of_state_and_its_picture(folder: Path) -> None:
    status, out, _ = run("eos", "Cu.vasp", "--plot", "eos.png", "--points", "7")
    assert status == 0
    assert "B₀ 13" in out  # GPa, 131 to 139
    assert Path("eos.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("eos", "nofile.cif"), "no file matches 'nofile.cif'"),
        (("eos", "Si.cif", "--out", "x.txt"), "x.txt has an unknown ending"),
        (("eos", "Si.cif", "--plot", "x.gif"), "x.gif has an unknown ending"),
        (("eos", "Si.cif", "--out", "nowhere/x.json"), "nowhere"),
        (("elastic", "Si.cif", "--model", "nosuchmodel"), "nosuchmodel"),
        (("relax", "Si.cif", "--cell", "strange"), "cell is 'strange'"),
        (("relax", "Si.cif", "--fmax", "-1"), "fmax is -1.0"),
        (("relax", "bad.cif"), "bad.cif cannot be read"),
        (("neb", "Si.cif", "Cu.vasp"), "both need the same atoms"),
    ],
)
def test_wrong_input_is_one_clear_line_and_writes_nothing(folder: Path, arguments: tuple[str, ...], text: str) -> None:
    before = set(folder.iterdir())
    status, out, err = run(*arguments)
    assert status == 1
    assert text in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert set(folder.iterdir()) == before
