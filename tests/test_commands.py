"""What all commands share: help, version, quiet, JSON, completion, exit status, one line for wrong input."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from command_line import invoke

from ase_andersonn import __version__
from ase_andersonn.pretrained.catalog import packaged_classifiers, packaged_models

pytestmark = pytest.mark.filterwarnings("ignore")
PROPERTIES = ("singlepoint", "relax", "eos", "elastic", "phonons", "qha", "vacancy")
COMMANDS = (*PROPERTIES, "neb", "train", "train-classifier", "classify", "evaluate", "models", "info")
LIGHT = """
import json, sys
from typer.testing import CliRunner
from ase_andersonn.cli import app
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments)
    print(json.dumps([done.exit_code, done.stdout[:20000], "torch" in sys.modules]))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("Si.cif", bulk("Si", a=5.47))
    write("Cu.vasp", bulk("Cu", a=3.64))
    return tmp_path


def test_version_help_and_completion_load_no_torch(tmp_path: Path) -> None:
    given: list[list[str]] = [["--version"], ["-h"], ["--show-completion"], ["models", "--json"]]
    given += [["info", name, "--json"] for name in (*packaged_models(), *packaged_classifiers())]
    given += [[command, "--help"] for command in COMMANDS]
    environment = os.environ | {"SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-c", LIGHT, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(given)
    for arguments, (status, text, torch) in zip(given, found, strict=True):
        assert not torch, arguments
        if arguments[0] != "--show-completion":  # which looks for the shell it is called from
            assert status == 0, (arguments, text)
        if arguments[-1] == "--help":
            assert "Example:" in text, arguments
            assert "--quiet" in text, arguments
    assert found[0][1] == f"ase-andersonn {__version__}\n"
    assert "2 for wrong usage" in " ".join(found[1][1].split())
    assert "--install-completion" in found[1][1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    code = "import sys\nfrom ase_andersonn.cli import main\nsys.argv = ['andersonn']\nmain()"
    words = {"COMP_WORDS": "andersonn phon", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "andersonn phon"}
    words |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_ANDERSONN_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | words
    )
    assert "phonons" in done.stdout, done.stderr


@pytest.mark.parametrize("command", ["elastic", "phonons", "vacancy", "qha", "neb"])
def test_help_says_what_is_relaxed_first(command: str) -> None:
    text = " ".join(invoke(command, "--help")[1].split())
    assert "relaxed first" in text
    assert ("--no-relax" in text) == (command != "qha")


def test_quiet_prints_errors_only(folder: Path) -> None:
    status, out, err = invoke("singlepoint", "Si.cif", "nothing/../Cu.vasp", "--quiet", "--out", "found.json")
    assert (status, out, err.count("\n")) == (1, "", 1)
    status, out, err = invoke("singlepoint", "Si.cif", "Cu.vasp", "-q", "--out", "found.json")
    assert (status, out, err) == (0, "", "")
    assert len(json.loads(Path("found.json").read_text())) == 2
    status, out, err = invoke("singlepoint", "Si.cif", "--quiet", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)[0]["name"] == "Si.cif"


def test_answers_as_json(folder: Path) -> None:
    found = json.loads(invoke("models", "--json")[1])
    assert [each["name"] for each in found] == [*packaged_models(), *packaged_classifiers()]
    facts = json.loads(invoke("info", "mlearn-pbe", "--json")[1])
    assert (facts["elements"], facts["cutoff"]) == (["Li", "Si", "Ni", "Cu", "Mo"], 5.0)
    assert facts == next(each for each in found if each["name"] == "mlearn-pbe")

    atoms = bulk("Si", a=5.5)
    atoms.calc = SinglePointCalculator(atoms, energy=-10.8, forces=np.zeros((2, 3)))
    write("labelled.xyz", atoms)
    status, out, _ = invoke("evaluate", "mlearn-pbe", "labelled.xyz", "--json")
    answer = json.loads(out)
    assert (status, answer["frames"], answer["spread"]) == (0, 1, None)
    assert answer["errors"]["all"]["energy"]["mae"] < 0.1
    assert answer["errors"]["all"]["stress"]["mae"] is None

    Path("bad.cif").write_text("junk")
    status, out, err = invoke("classify", "Si.cif", "bad.cif", "--json")
    good, bad = json.loads(out)
    assert (status, good["name"], bad["label"], err.count("\n")) == (1, "Si.cif", None, 1)


def test_a_molecule_has_no_volume(folder: Path) -> None:
    write("water.xyz", molecule("H2O"))
    status, out, _ = invoke("relax", "water.xyz", "--model", "organic", "--structures", "relaxed.xyz")
    assert status == 0
    assert "nan" not in out
    assert "Å³" not in out
    assert "name=water.xyz" in Path("relaxed.xyz").read_text()


@pytest.mark.parametrize("command", [["singlepoint"], ["relax", "--cell", "fixed", "--fmax", "1"]])
def test_warnings_name_the_file(folder: Path, command: list[str]) -> None:
    """On the terminal; of one structure, and of a batch."""
    write("lone.xyz", Atoms("Si"))
    whole = [sys.executable, "-m", "ase_andersonn.cli", *command, "Si.cif", "lone.xyz"]
    done = subprocess.run(whole, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert [line.rpartition(": ")[0][:60] for line in lines] == [
        "warning: lone.xyz: the model was not trained on molecules and clusters"[:60],
        "warning: lone.xyz: atom 0 (Si) has no neighbour within 6.5 Å, and"[:60],
    ]


def test_an_interrupt_is_said_in_one_line(folder: Path) -> None:
    """Ctrl-C while libraries are loaded, or in the midst of a computation."""
    code = (
        "import os, signal, sys, threading\nfrom ase_andersonn.cli import main\nended = threading.Event()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which is ignored in a shell's background
        # Again and again: an interruption while a library is imported may be lost in it. None while Python shuts down.
        "def interrupt():\n    while not ended.wait(3.0):\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "sys.argv = ['andersonn', 'vacancy', 'Si.cif', '--min-length', '40', '--out', 'found.json']\n"
        "try:\n    main()\nfinally:\n    ended.set()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted.\n")
    assert sorted(path.name for path in folder.iterdir()) == ["Cu.vasp", "Si.cif"]


def test_a_reader_that_stops_is_no_error(folder: Path) -> None:
    code = f"{sys.executable} -m ase_andersonn.cli models --json | head -1"
    done = subprocess.run(code, shell=True, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
def test_a_full_disk_is_said_in_one_line(folder: Path) -> None:
    code = f"{sys.executable} -m ase_andersonn.cli models > /dev/full"
    done = subprocess.run(code, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


def _flat(atoms: Atoms) -> Atoms:
    atoms.cell[0] = 0.0
    return atoms


def _not_finite(atoms: Atoms) -> Atoms:
    atoms.positions[1] = np.nan
    return atoms


def _doubled(atoms: Atoms) -> Atoms:
    atoms.positions[1] = atoms.positions[0]
    return atoms


WRONG_STRUCTURES: dict[str, tuple[Callable[[], Any], str]] = {
    "radium.xyz": (lambda: bulk("Ra", "bcc", 5.1), "contains Ra; this model knows "),
    "flat.xyz": (lambda: _flat(bulk("Si")), "the cell vector is zero"),
    "nan.xyz": (lambda: _not_finite(bulk("Si")), "are not finite"),
    "doubled.xyz": (lambda: _doubled(bulk("Si")), "Å apart"),
}


@pytest.mark.parametrize("command", PROPERTIES)
def test_a_structure_without_a_meaning_is_one_line(folder: Path, command: str) -> None:
    for name, (make, _) in WRONG_STRUCTURES.items():
        write(name, make())
    write("slab.xyz", Atoms("Si2", [[0, 0, 0], [0, 0, 2.3]], cell=[5, 5, 20], pbc=[True, True, False]))
    Path("empty.cif").write_text("")
    errors = {name: text for name, (_, text) in WRONG_STRUCTURES.items()} | {"empty.cif": "it is empty"}
    if command not in ("singlepoint", "relax"):
        errors["slab.xyz"] = "has to repeat in three directions"
    status, out, err = invoke(command, *errors)
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert len(lines) == len(errors)
    for name, text in errors.items():
        (line,) = (line for line in lines if line.startswith((f"failed: {name}: ", f"failed: {name} ")))
        assert text in line
        assert line.count(name) == 1


@pytest.mark.parametrize("command", PROPERTIES)
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nothing.cif",), "no file matches 'nothing.cif'"),
        ((".", "--model", "nomodel"), "there is no model 'nomodel'"),
        (("Si.cif", "--device", "tpu"), "unknown device 'tpu'"),
        (("Si.cif", "--out", "nowhere/x.json"), "nowhere"),
        (("Si.cif", "--out", "x.txt"), "x.txt has an unknown ending"),
        (("Si.cif", "--out", "folder.json"), "it is a folder"),
        (("Si.cif", "--out", "pipe.json"), "it is no regular file"),
    ],
)
def test_a_wrong_request_is_one_line(folder: Path, command: str, arguments: tuple[str, ...], text: str) -> None:
    Path("folder.json").mkdir()
    os.mkfifo("pipe.json")
    _refused(folder, (command, *arguments), text)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("relax", "Si.cif", "--pressure", "nan"), "pressure is nan"),
        (("relax", "Si.cif", "--pressure", "5", "--cell", "fixed"), "a pressure, 5 GPa, changes nothing"),
        (("relax", "Si.cif", "--pressure", "-1000"), "failed: Si.cif: "),
        (("relax", "Si.cif", "--steps", "-1"), "steps is -1"),
        (("eos", "Si.cif", "--points", "2"), "points is 2"),
        (("eos", "Si.cif", "--width", "-1"), "width is -1.0"),
        (("eos", "Si.cif", "--width", "2"), "width is 2.0"),
        (("elastic", "Si.cif", "--strain", "0"), "strain is 0.0"),
        (("elastic", "Si.cif", "--strain", "1"), "strain is 1.0"),
        (("phonons", "Si.cif", "--displacement", "0"), "displacement is 0.0"),
        (("phonons", "Si.cif", "--min-length", "1e6"), "supercell of "),
        (("qha", "Si.cif", "--max-temperature", "-5"), "max_temperature is -5.0"),
        (("vacancy", "Si.cif", "--min-length", "0"), "min_length is 0.0"),
        (("neb", "Si.cif", "nothing.cif"), "no file matches 'nothing.cif'"),
        (("neb", "Si.cif", "Si.cif"), "there is no path between them"),
        (("neb", "Si.cif", "Si.cif", "--images", "0"), "images is 0"),
        (("neb", "nan.xyz", "Si.cif"), "nan.xyz: positions of atoms 1 are not finite"),
        (("evaluate", "mlearn-pbe", "Si.cif"), "no label 'energy'"),
        (("evaluate", "electronic", "Si.cif"), "is a classifier"),
        (("classify", "Si.cif", "--confidence", "7"), "confidence is 7.0"),
        (("info", "Si.cif"), "cannot be read as a model"),
        (("train", "Si.cif"), "cannot tell the format"),
    ],
)
def test_a_wrong_option_is_one_line(folder: Path, arguments: tuple[str, ...], text: str) -> None:
    write("nan.xyz", _not_finite(bulk("Si")))
    _refused(folder, arguments, text)


def _refused(folder: Path, arguments: tuple[str, ...], text: str) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    status, out, err = invoke(*arguments)
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert text in err
    for leak in ("Traceback", "Errno", "Error:", "Error("):
        assert leak not in err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("arguments", [(), ("nocommand",), ("eos",), ("eos", "a.cif", "--points", "few"), ("neb", "a")])
def test_wrong_usage_has_status_2(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments)[0] == 2


def test_any_error_of_a_band_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("space group")

    monkeypatch.setattr("ase_andersonn.workflows.neb.nudged_elastic_band", broken)
    assert invoke("neb", "Si.cif", "Si.cif") == (1, "", "error: KeyError('space group')\n")
