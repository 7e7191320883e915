"""Commands for properties: one line a structure, results as JSON, clear errors, nothing half-written."""

import importlib
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule
from ase.io import read, write
from command_line import invoke

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("Si.cif", bulk("Si", a=5.5))
    write("Cu.vasp", bulk("Cu", a=3.7))
    Path("bad.cif").write_text("junk")
    write("in.json", bulk("Si"))
    return tmp_path


def test_single_points_of_several_files_one_of_them_broken(folder: Path) -> None:
    status, out, err = invoke("singlepoint", "Si.cif", "Cu.vasp", "bad.cif", "--out", "found.json")
    assert status == 1
    assert [line.split(":")[0] for line in out.splitlines()] == ["Si.cif", "Cu.vasp"]
    assert err.count("failed: bad.cif") == 1
    silicon, copper, bad = json.loads(Path("found.json").read_text())
    assert silicon["energy_per_atom"] == pytest.approx(-5.24, abs=0.05)
    assert len(copper["stress"]) == 6
    assert "error" in bad


def test_molecules_have_no_stress(folder: Path) -> None:
    write("water.xyz", molecule("H2O"))
    status, out, _ = invoke("singlepoint", "water.xyz", "--model", "organic", "--json")
    assert status == 0
    (found,) = json.loads(out)
    assert found["stress"] is None
    assert len(found["forces"]) == 3


def test_relaxed_structures_are_written(folder: Path) -> None:
    status, out, err = invoke("relax", "Cu.vasp", "Si.cif", "bad.cif", "--structures", "relaxed.xyz", "--pressure", "0")
    assert status == 1
    assert "Cu.vasp: " in out
    assert "failed: bad.cif" in err
    copper, silicon = read("relaxed.xyz", ":")
    assert copper.get_volume() == pytest.approx(11.96, abs=0.15)  # PBE
    assert abs(silicon.get_forces()).max() < 0.01


def test_equation_of_state_and_its_picture(folder: Path) -> None:
    status, out, _ = invoke("eos", "Cu.vasp", "--plot", "eos.png", "--points", "7")
    assert status == 0
    found = re.search(r"B₀ ([\d.]+) GPa", out)
    assert found is not None
    assert float(found[1]) == pytest.approx(137, abs=12)  # PBE
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
        (("relax", "bad.cif", "--structures", "x.xyz"), "bad.cif cannot be read"),
        (("relax", "Si.cif", "--structures", "."), ". cannot be written: it is a folder"),
        (("relax", "Si.cif", "--steps", "0", "--structures", "nowhere/x.xyz"), "nowhere"),
        (("relax", "Si.cif", "--structures", "Si.cif"), "Si.cif is one of the files to be read"),
        (("relax", "Si.cif", "--structures", "x.json", "--out", "./x.json"), "name two files"),
        (("singlepoint", "Si.cif", "in.json", "--out", "in.json"), "in.json is one of the files to be read"),
        (("neb", "Si.cif", "Cu.vasp"), "both need the same atoms"),
    ],
)
def test_wrong_input_is_one_clear_line_and_writes_nothing(folder: Path, arguments: tuple[str, ...], text: str) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, out, err = invoke(*arguments)
    assert status == 1
    assert text in err
    assert len(err.splitlines()) == 1
    assert out == ""
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def workflow(name: str) -> Any:
    return importlib.import_module(f"ase_andersonn.workflows.{name}")


def test_outputs_in_a_folder_are_not_read_the_next_time(folder: Path) -> None:
    Path("bad.cif").unlink()
    for _ in range(2):
        status, _, err = invoke("relax", ".", "--steps", "0", "--fmax", "9", "--structures", "r.xyz", "--out", "r.json")
        assert (status, err) == (0, "")
        assert [entry["name"] for entry in json.loads(Path("r.json").read_text())] == ["Cu.vasp", "Si.cif", "in.json"]
        assert len(read("r.xyz", ":")) == 3


def test_structures_that_do_not_converge_keep_geometry_and_energy(folder: Path) -> None:
    arguments = ("--fmax", "0.002", "--steps", "0", "--out", "found.json", "--structures", "relaxed.xyz")
    status, out, err = invoke("relax", "Cu.vasp", "bad.cif", *arguments)
    assert (status, out) == (1, "")
    assert "failed: Cu.vasp: not converged after 0 steps: fmax = " in err
    assert "failed: bad.cif cannot be read" in err
    copper, bad = json.loads(Path("found.json").read_text())
    assert copper["atoms"]["symbols"] == ["Cu"]
    assert copper["energy"] < 0.0
    assert copper["error"].startswith("not converged after 0 steps: fmax = ")
    assert bad["error"].startswith("bad.cif cannot be read")
    assert not Path("relaxed.xyz").exists()


def test_one_structure_that_does_not_converge_is_a_failure_beside_the_others(folder: Path) -> None:
    write("moved.vasp", _moved())
    status, out, err = invoke("relax", "Cu.vasp", "moved.vasp", "--cell", "fixed", "--steps", "0", "--json")
    assert status == 1
    assert err.startswith("failed: moved.vasp: not converged after 0 steps")
    assert [entry["converged"] for entry in json.loads(out)] == [True, False]


def _moved() -> Any:
    atoms = bulk("Si", a=5.43)
    atoms.positions[1] += 0.2
    return atoms


def test_any_error_of_one_structure_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = workflow("singlepoint")
    original = module.singlepoint

    def broken(atoms: Any, calc: Any) -> Any:
        if "Si" in atoms.symbols:
            raise KeyError("space group\nof silicon")
        return original(atoms, calc)

    monkeypatch.setattr(module, "singlepoint", broken)
    status, out, err = invoke("singlepoint", "Si.cif", "Cu.vasp")
    assert status == 1
    assert out.startswith("Cu.vasp: ")
    assert err == "failed: Si.cif: KeyError('space group\\nof silicon')\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_interrupted_single_points_keep_what_was_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    module = workflow("singlepoint")
    original = module.singlepoint

    def interrupted(atoms: Any, calc: Any) -> Any:
        if "Si" in atoms.symbols:
            raise KeyboardInterrupt
        return original(atoms, calc)

    monkeypatch.setattr(module, "singlepoint", interrupted)
    more = ("--json",) if as_json else ()
    status, out, err = invoke("singlepoint", "Cu.vasp", "Si.cif", "--out", "found.json", *more)
    assert (status, err) == (130, "interrupted.\n")
    (entry,) = json.loads(Path("found.json").read_text())
    assert entry["name"] == "Cu.vasp"
    if as_json:
        assert json.loads(out) == [entry]


def test_interrupted_relaxations_keep_what_was_relaxed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = workflow("relax")
    original = module.relax_each

    def interrupted(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield next(original(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "relax_each", interrupted)
    status, _, err = invoke("relax", "Cu.vasp", "Si.cif", "--structures", "relaxed.xyz", "--out", "found.json")
    assert (status, err) == (130, "interrupted.\n")
    (entry,) = json.loads(Path("found.json").read_text())
    (atoms,) = read("relaxed.xyz", ":")
    assert entry["energy"] == pytest.approx(atoms.get_potential_energy())


def test_interrupted_before_the_first_result_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow("singlepoint"), "singlepoint", interrupted)
    assert invoke("singlepoint", "Cu.vasp", "--json", "--out", "found.json") == (130, "", "interrupted.\n")
    assert not Path("found.json").exists()


def test_results_are_written_where_structures_fail_to_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ase_andersonn.cli.request._write_structures", full)
    status, out, err = invoke("relax", "Cu.vasp", "--structures", "relaxed.xyz", "--out", "found.json", "--json")
    assert (status, err) == (1, "error: No space left on device\n")
    assert json.loads(Path("found.json").read_text()) == json.loads(out)


def test_a_band_that_does_not_converge_is_told_from_a_barrier(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = bulk("Cu", a=3.63, cubic=True)
    write("a.xyz", crystal[[1, 2, 3]])
    crystal.positions[1] = crystal.positions[0]
    write("b.xyz", crystal[[1, 2, 3]])
    module = workflow("neb")
    short = partial(module.nudged_elastic_band, steps=0, relax_ends=False)
    monkeypatch.setattr(module, "nudged_elastic_band", short)
    status, out, err = invoke("neb", "a.xyz", "b.xyz", "--images", "1", "--out", "found.json", "--fmax", "1e-6")
    assert (status, err) == (1, "")
    assert re.search(r"barrier [\d.]+ eV, .*, not converged, fmax [\d.e-]+ eV/Å\n$", out)
    assert json.loads(Path("found.json").read_text())[0]["converged"] is False
