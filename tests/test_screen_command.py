"""`andersonn screen`: the folder to the report, errors of one line, exit status, interruption, Dask."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from command_line import invoke
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor

from ase_andersonn.workflows.screen.hull import read_entries
from ase_andersonn.workflows.screen.journal import NAME
from ase_andersonn.workflows.screen.tables import FILES

pytestmark = pytest.mark.filterwarnings("ignore")
SAME = ("table.csv", "table.json", "relaxed.xyz", "report.html")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files, two frames, a database and pymatgen's JSON in a folder with one that is broken."""
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "given"
    (given / "more").mkdir(parents=True)
    write(given / "Cu.cif", bulk("Cu", a=3.7))
    write(given / "Si.vasp", bulk("Si", a=5.5))
    write(given / "frames.xyz", [bulk("Cu", cubic=True), bulk("Ni")])
    write(given / "more" / "base.db", bulk("Mo"))
    structures = [AseAtomsAdaptor.get_structure(bulk("Li")).as_dict()]
    (given / "pymatgen.json").write_text(json.dumps(structures))
    (given / "bad.cif").write_text("junk")
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    return invoke("screen", *arguments)


def test_a_folder_becomes_a_table(folder: Path) -> None:
    options = ("--properties", "bulk_modulus,label", "--sort", "bulk_modulus", "--descending", "--out", "out")
    status, out, err = run("given", *options, "--filter", "bulk_modulus > 70", "--filter", 'label != "nothing"')
    assert status == 1  # one is broken
    assert err.startswith("failed: given/bad.cif cannot be read")
    assert len(err.splitlines()) == 1
    assert out.startswith(
        "4 of 7 structures selected; table and report in out\n   1  given/more/base.db  Mo  bulk_modulus"
    )
    rows = json.loads(Path("out/table.json").read_text())
    names = ["more/base.db", "frames.xyz#1", "Cu.cif", "Si.vasp", "pymatgen.json", "frames.xyz#0", "bad.cif"]
    assert [row["name"] for row in rows] == [f"given/{name}" for name in names]
    assert [row["status"] for row in rows] == ["ok"] * 5 + ["duplicate", "failed"]
    assert rows[5]["duplicate_of"] == "given/Cu.cif"
    assert {row["label"] for row in rows if row["formula"] in ("Cu", "Ni", "Mo")} - {None} == {"metal"}
    assert all(0 <= row["extrapolation"] <= row["largest_extrapolation"] for row in rows[:5])
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([*FILES, NAME])
    assert len(read("out/relaxed.xyz", ":")) == 5


def test_outputs_in_the_folder_are_not_read(folder: Path) -> None:
    first = run(".", "--out", "given", "--fmax", "9", "--cell", "fixed", "--quiet")
    before = [row["name"] for row in json.loads(Path("given/table.json").read_text())]
    assert run(".", "--out", "given", "--fmax", "9", "--cell", "fixed", "--quiet", "--resume") == first
    assert [row["name"] for row in json.loads(Path("given/table.json").read_text())] == before
    assert len(before) == 7


def test_json_and_quiet(folder: Path) -> None:
    options = ("given/Cu.cif", "--cell", "fixed", "--out", "out", "--quiet")
    assert run(*options) == (0, "", "")
    status, out, err = run(*options, "--json", "--resume")
    assert (status, err) == (0, "")
    assert json.loads(out)["rows"] == json.loads(Path("out/table.json").read_text())


def test_references_from_entries_and_from_structures(folder: Path) -> None:
    structure = AseAtomsAdaptor.get_structure(bulk("Ni"))
    entries = [ComputedEntry("Cu", -4.0, correction=-0.1, entry_id="a"), ComputedStructureEntry(structure, -5.5)]
    Path("entries.json").write_text(json.dumps({"entries": [entry.as_dict() for entry in entries]}))
    found = read_entries(Path("entries.json"))
    assert [(entry.composition.reduced_formula, entry.energy) for entry in found] == [("Cu", -4.1), ("Ni", -5.5)]
    options = ("given/frames.xyz", "--out", "out", "--reference", "entries.json")
    assert run(*options)[0] == 0
    for row in json.loads(Path("out/table.json").read_text()):
        entry = ComputedEntry(row["formula"], row["energy_per_atom"])
        expected = PhaseDiagram(entries).get_e_above_hull(entry, allow_negative=True)
        assert row["e_above_hull"] == pytest.approx(expected, abs=2e-6)
    assert run(*options, "--reference", "given/Si.vasp", "--resume")[0] == 0
    assert run(*options[:3], "--reference", "given/frames.xyz", "--resume")[0] == 0
    assert [row["e_above_hull"] for row in json.loads(Path("out/table.json").read_text())] == [0.0, 0.0]


def test_what_entries_may_not_do(tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([{"@module": "os", "@class": "system", "energy": 1.0, "composition": {"Cu": 1}}]))
    (entry,) = read_entries(path)
    assert isinstance(entry, ComputedEntry)
    path.write_text(json.dumps([{"energy": "low", "composition": {"Cu": 1}}]))
    with pytest.raises(ValueError, match="holds an entry that cannot be read"):
        read_entries(path)
    path.write_text("[" * 100_000)
    assert read_entries(path) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nofile.cif", "--out", "out"), "no file matches 'nofile.cif'"),
        (("given", "--out", "given/Cu.cif"), "given/Cu.cif cannot be created"),
        (("given", "--out", "out", "--properties", "colour"), "properties has 'colour'"),
        (("given", "--out", "out", "--filter", "colour > 1"), "names 'colour', which is no column"),
        (("given", "--out", "out", "--filter", "__import__('os')"), "the filter"),
        (("given", "--out", "out", "--sort", "bulk_modulus"), "sort is 'bulk_modulus'"),
        (("given", "--out", "out", "--model", "nosuchmodel"), "nosuchmodel"),
        (("given", "--out", "out", "--classifier", "electronic"), "without the property label"),
        (("given", "--out", "out", "--properties", "label", "--classifier", "none"), "none"),
        (("given", "--out", "out", "--reference", "none.json"), "no file matches 'none.json'"),
        (("given", "--out", "out", "--reference", "given/bad.cif"), "the reference given/bad.cif cannot be used"),
        (("given", "--out", "out", "--cell", "odd"), "cell is 'odd'"),
        (("given", "--out", "out", "--cluster", "none"), "no Dask scheduler can be reached at 'none'"),
        (("given", "--out", "out", "--fmax", "0"), "fmax is 0.0"),
    ],
)
def test_wrong_input_is_one_clear_line_and_writes_nothing(folder: Path, arguments: tuple[str, ...], text: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert text in err
    assert len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_with_a_screening_is_not_begun_anew(folder: Path) -> None:
    options = ("given/Cu.cif", "--cell", "fixed", "--out", "out")
    assert run(*options)[0] == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    status, _, err = run(*options)
    assert (status, err) == (1, "error: out holds a screening; go on with resume, or name another folder.\n")
    status, _, err = run(*options, "--resume", "--fmax", "0.5")
    assert status == 1
    assert "fmax was 0.01 and is 0.5" in err
    status, _, err = run(*options, "--resume", "--model", "mlearn-pbe-large")
    assert status == 1
    assert "other settings" in err
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


@pytest.mark.slow
def test_ctrl_c_and_kill_and_dask_give_one_table(folder: Path) -> None:
    for k in range(24):  # two blocks, so that the second one is stopped
        atoms = bulk("Cu", cubic=True) * (2, 2, 1)
        atoms.rattle(0.05, seed=k)
        write(folder / "given" / f"x{k:02d}.cif", atoms)
    options = ["given", "--properties", "bulk_modulus", "--keep-duplicates", "--fmax", "0.02"]
    assert run(*options, "--out", "straight")[0] == 1
    for number in (signal.SIGINT, signal.SIGKILL):
        process = started(*options, "--out", "stopped", "--resume")
        size = size_of("stopped")
        while process.poll() is None and size_of("stopped") <= size:
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == (130 if number == signal.SIGINT else -9)
        assert b"interrupted." in err or number == signal.SIGKILL
    assert size_of("stopped") > 0
    assert run(*options, "--out", "stopped", "--resume")[0] == 1
    pytest.importorskip("distributed")
    process = started(*options, "--out", "cluster", "--cluster", "local")
    process.communicate(timeout=200)
    assert process.returncode == 1
    for name in SAME:
        assert Path("stopped", name).read_bytes() == Path("straight", name).read_bytes()
        assert Path("cluster", name).read_bytes() == Path("straight", name).read_bytes()


def started(*arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ase_andersonn.cli", "screen", *arguments]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, preexec_fn=_heed_interrupts, **pipes)


def _heed_interrupts() -> None:
    """Interrupts are ignored in a shell's background, and by what is started there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def size_of(folder: str) -> int:
    journal = Path(folder, NAME)
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_a_thousand_with_ten_broken(folder: Path) -> None:
    """Not a thousand computations: copies are duplicates, which are told of as quickly."""
    many: list[Any] = []
    for k in range(60):
        atoms = bulk("Cu", a=3.6 + 1e-4 * k)
        many.append(
            Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 1e-5]], cell=[4, 4, 4], pbc=True) if k % 6 == 5 else atoms
        )
    write("many.xyz", many)
    status, out, err = run("many.xyz", "--out", "out")
    assert status == 1
    assert out.startswith("1 of 60 structures selected")
    assert len(err.splitlines()) == 10
    rows = json.loads(Path("out/table.json").read_text())
    assert sum(row["status"] == "failed" for row in rows) == 10
    assert sum(row["status"] == "duplicate" for row in rows) == 49
