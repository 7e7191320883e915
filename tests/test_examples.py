"""The examples run, in their shortened form, and leave the pictures they promise."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, folder: Path, *arguments: str) -> str:
    """What an example prints; it runs as a copy, so that `out` lies in `folder`."""
    copy = shutil.copy(EXAMPLES / script, folder)
    environment = os.environ | {"ANDERSONN_EXAMPLE_QUICK": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, str(copy), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_numbered_and_tested() -> None:
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    text = Path(__file__).read_text(encoding="utf-8")
    assert scripts
    for number, script in enumerate(scripts, start=1):
        assert script.startswith(f"{number:02d}_")
        assert f'run("{script}"' in text
        assert "# %%" in (EXAMPLES / script).read_text(encoding="utf-8")


def test_md(tmp_path: Path) -> None:
    text = run("01_md.py", tmp_path)
    assert "Etot/N[eV]" in text
    assert "drift" in text
    assert (tmp_path / "out" / "01_md.png").stat().st_size
    assert (tmp_path / "out" / "01_md_si.traj").stat().st_size


def test_relax(tmp_path: Path) -> None:
    text = run("02_relax.py", tmp_path)
    assert "bulk modulus" in text
    assert (tmp_path / "out" / "02_relax.png").stat().st_size


def test_train(tmp_path: Path) -> None:
    text = run("03_train.py", tmp_path)
    assert "vacancy formation energy" in text
    out = tmp_path / "out" / "03_train"
    for name in ("run/best.safetensors", "run/learning_curve.png", "parity.png", "03_train.png"):
        assert (out / name).stat().st_size


def test_ising(tmp_path: Path) -> None:
    text = run("04_ising.py", tmp_path)
    assert "standard errors from Onsager's" in text
    assert (tmp_path / "out" / "04_ising.png").stat().st_size


def test_graphene_mc(tmp_path: Path) -> None:
    text = run("05_graphene_mc.py", tmp_path)
    assert "first peak" in text
    assert (tmp_path / "out" / "05_graphene_mc.png").stat().st_size


def test_many_atoms(tmp_path: Path) -> None:
    text = run("06_many_atoms.py", tmp_path)
    assert "slope of log time" in text
    assert (tmp_path / "out" / "06_many_atoms.png").stat().st_size


def test_classify(tmp_path: Path) -> None:
    text = run("07_classify.py", tmp_path)
    assert "failed: cut_short.cif" in text
    out = tmp_path / "out"
    assert (out / "07_classify.png").stat().st_size
    with open(out / "07_classify.csv", newline="") as table:
        labels = {Path(row["name"]).name.split(".")[0]: row["best"] for row in csv.DictReader(table)}
    assert labels["Cu"] == "metal"
    assert labels["NaCl"] == "insulator"
    assert "Cu.cif " in run("07_classify.py", tmp_path, str(out / "07_structures" / "Cu.cif"))


def test_molecules(tmp_path: Path) -> None:
    text = run("09_molecules.py", tmp_path)
    assert "torsion of butane" in text
    assert (tmp_path / "out" / "09_molecules.png").stat().st_size


def test_fine_tuning(tmp_path: Path) -> None:
    text = run("10_fine_tuning.py", tmp_path)
    before, after = (float(line.split("meV")[0].split()[-1]) for line in text.splitlines()[:2])
    assert after < 0.5 * before
    assert (tmp_path / "out" / "10_fine_tuning" / "10_fine_tuning.png").stat().st_size


def test_properties(tmp_path: Path) -> None:
    text = run("11_properties.py", tmp_path)
    assert "bulk modulus" in text
    assert "thermal expansion" in text
    for name in ("eos", "elastic", "phonons", "thermal"):
        assert (tmp_path / "out" / "11_properties" / f"{name}.png").stat().st_size


def test_screening(tmp_path: Path) -> None:
    text = run("12_screening.py", tmp_path)
    assert "1. Ni:" in text
    assert "Cu_conventional.cif: duplicate" in text
    assert "broken.cif: failed" in text
    assert (tmp_path / "out" / "12_screening" / "report.html").stat().st_size
    assert run("12_screening.py", tmp_path) == text  # resumed


def test_trajectory(tmp_path: Path) -> None:
    text = run("13_trajectory.py", tmp_path)
    assert "heat capacity at constant volume" in text
    assert "neighbours within 3.3 Å: 12.0" in text
    assert (tmp_path / "out" / "13_trajectory" / "13_trajectory.png").stat().st_size


def test_deep_andersonn(tmp_path: Path) -> None:
    text = run("08_deep_andersonn.py", tmp_path)
    assert "accuracy" in text
    assert "gain" in text
    assert (tmp_path / "out" / "08_deep_andersonn" / "08_deep_andersonn.png").stat().st_size
