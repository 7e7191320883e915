"""Commands for simulations and surfaces: answers, files, going on, one clear line where the input is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write
from command_line import invoke

pytestmark = pytest.mark.filterwarnings("ignore")
MD = ("md", "Cu.cif", "--ensemble", "bussi", "--temp", "300", "--seed", "1", "--file-prefix", "run")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("Cu.cif", bulk("Cu", cubic=True, a=3.63))
    write("alloy.cif", bulk("RaO", "rocksalt", a=5.6))
    Path("bad.cif").write_text("junk")
    return tmp_path


def test_molecular_dynamics_and_how_it_goes_on(folder: Path) -> None:
    status, out, err = invoke(*MD, "--steps", "20", "--plot", "md.png", "--out", "md.json")
    assert (status, err) == (0, "")
    assert out.startswith("Cu.cif: ")
    assert out.endswith("after 20 steps\n")
    assert re.search(r"means of 3 rows: \d+ ± \d+ K, -[\d.]+ ± [\d.]+ eV/atom in total, -[\d.]+ ± .*; last \d+ K", out)
    (entry,) = json.loads(Path("md.json").read_text())
    assert len(entry["times"]) == len(read("run.traj", ":")) == 3
    assert Path("md.png").stat().st_size > 5000
    status, out, _ = invoke(*MD, "--steps", "30", "--resume", "--json")
    assert status == 0
    assert json.loads(out)[0]["steps"] == 30
    assert len(Path("run.log").read_text().splitlines()) == 5


def test_monte_carlo_and_how_it_goes_on(folder: Path) -> None:
    arguments = (
        "mc",
        "Cu.cif",
        "--temp",
        "300",
        "--moves",
        "displacement,volume",
        "--equil-sweeps",
        "1",
        "--seed",
        "1",
    )
    status, out, err = invoke(*arguments, "--sweeps", "10", "--file-prefix", "run", "--traj-every", "5")
    assert (status, err) == (0, "")
    assert "accepted: Displacement " in out
    assert " Å³/atom" in out
    status, _, _ = invoke(*arguments, "--sweeps", "15", "--file-prefix", "run", "--traj-every", "5", "--resume")
    assert status == 0
    with pytest.warns(UserWarning, match="has 15 sweeps already, and sweeps, of the whole run, is 12: nothing"):
        status, _, _ = invoke(*arguments, "--sweeps", "12", "--file-prefix", "run", "--traj-every", "5", "--resume")
    assert status == 0
    assert len(read("run.traj", ":")) == 4


def test_a_run_that_has_all_its_steps_says_so(folder: Path) -> None:
    assert invoke(*MD, "--steps", "20")[0] == 0
    with pytest.warns(UserWarning, match="has 20 steps already, and steps, of the whole run, is 15: nothing"):
        status, out, _ = invoke(*MD, "--steps", "15", "--resume")
    assert status == 0
    assert "after 20 steps" in out


def test_surfaces(folder: Path) -> None:
    status, out, _ = invoke("surface", "Cu.cif", "--miller", "1,0,0", "--thicknesses", "2", "--min-thickness", "5")
    assert status == 0
    assert out.startswith("Cu.cif: 1,0,0: ")
    assert float(out.split()[2]) == pytest.approx(1.47, abs=0.2)  # PBE, J/m²


def test_the_normal_of_a_surface_has_to_be_given(folder: Path) -> None:
    status, out, err = invoke("surface", "Cu.cif")
    assert (status, out) == (2, "")
    assert "--miller" in err


def test_a_run_that_stops_by_itself_has_a_reason(folder: Path) -> None:
    status, out, err = invoke(
        "md", "Cu.cif", "--temp", "300", "--steps", "5", "--max-temperature", "10", "--out", "x.json"
    )
    assert status == 1
    assert "after 0 steps" in out
    assert err.startswith("stopped after 0 steps the temperature was ")
    assert json.loads(Path("x.json").read_text())[0]["stopped_because"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("md", "nofile.cif"), "no file matches 'nofile.cif'"),
        (("md", "*.cif", "--temp", "3"), "is no single structure file"),
        (("md", "bad.cif", "--temp", "3"), "bad.cif cannot be read"),
        (("md", "Cu.cif"), "the structure has no velocities"),
        (("md", "Cu.cif", "--temp", "3", "--ensemble", "nvt"), "ensemble is 'nvt'; it is one of nve"),
        (("md", "Cu.cif", "--temp", "3", "--pressure", "1"), "changes nothing with 'nve'"),
        (("md", "Cu.cif", "--temp", "3", "--resume"), "--resume needs the --file-prefix"),
        (("md", "Cu.cif", "--temp", "3", "--file-prefix", "nowhere/x"), "nowhere"),
        (("md", "Cu.cif", "--temp", "3", "--model", "nosuchmodel"), "nosuchmodel"),
        (("md", "alloy.cif", "--temp", "3"), "Ra"),
        (("mc", "Cu.cif", "--temp", "300", "--moves", "jump"), "there is no move 'jump'"),
        (("mc", "Cu.cif", "--temp", "-3"), "temperature is -3.0"),
        (("mc", "Cu.cif", "--temp", "300", "--moves", "swap"), "two species"),
        (("surface", "Cu.cif", "--miller", "1,0"), "three whole numbers"),
        (("surface", "Cu.cif", "--miller", "up"), "--miller is 'up'"),
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


def test_ctrl_c_ends_a_run_that_goes_on(folder: Path) -> None:
    command = [sys.executable, "-m", "ase_andersonn.cli", *MD, "--steps", "100000", "--traj-every", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(1200):
            if Path("run.log").exists() and Path("run.log").read_text().count("\n") > 150:
                break
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert out.startswith("Cu.cif: ")
    assert "by SIGINT; resume goes on from step 1" in err
    state = int(err.split("resume goes on from step ")[1].split(".")[0])
    status, out, _ = invoke(*MD, "--steps", str(state + 5), "--traj-every", "1", "--resume")
    assert status == 0
    frames = read("run.traj", ":")
    assert [image.info["step"] for image in frames] == list(range(state + 6))
    assert np.isfinite(frames[-1].positions).all()
