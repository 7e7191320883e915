"""The `andersonn` command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from command_line import run

from ase_andersonn.pretrained.catalog import packaged_classifiers, packaged_models

CONFIG = """
train: [{data}]
output: {output}
validation_fraction: 0.25
max_epochs: 2
batch_atoms: 4
device: cpu
model: {{cutoff: 3.0, n_radial: 4, l_max: 1, n_channels: 8, n_edge: 8, n_token: 8, n_heads: 2, n_hidden: 8}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    frames: list[Atoms] = []
    for index in range(8):
        atoms = bulk("Cu", a=3.5 + 0.05 * index)
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0 + 0.1 * index, forces=[[0.0, 0.0, 0.0]])
        frames.append(atoms)
    write(tmp_path / "data.extxyz", frames)
    return tmp_path / "data.extxyz"


@pytest.mark.parametrize("name", packaged_models())
def test_every_packaged_model_has_a_card(name: str) -> None:
    code, output = run("info", name)
    assert code == 0, output
    assert "architecture" in output
    assert "limits" in output
    assert "not stated" not in output
    assert len(output.splitlines()) < 100
    assert "training" in json.loads(Path(output.split("all of it")[1].strip()).read_text())["card"]


@pytest.mark.parametrize("name", packaged_classifiers())
def test_every_packaged_classifier_has_a_card(name: str) -> None:
    code, output = run("info", name)
    assert code == 0, output
    assert "\nlabels        " in output
    assert "not stated" not in output
    assert ("members" in output) == name.endswith("-ensemble")


def test_models_lists_what_is_packaged() -> None:
    code, output = run("models")
    assert code == 0, output
    for name in [*packaged_models(), *packaged_classifiers()]:
        assert f"\n{name}: " in output
    assert "elements  Li, Si, Ni, Cu, Mo\n  method    PBE (VASP)\n  error     Cu: 0." in output
    assert "labels    metal, semiconductor, insulator" in output


def test_a_committee(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=data, output=tmp_path / "run"))
    code, output = run("train", config, "--seeds", 2)
    ensemble = tmp_path / "run" / "ensemble"
    assert (code, f"the committee is in {ensemble}" in output) == (0, True), output
    assert sorted(path.name for path in ensemble.glob("*.safetensors")) == ["seed-0.safetensors", "seed-1.safetensors"]
    first, second = (path.read_bytes() for path in sorted(ensemble.glob("*.safetensors")))
    assert first == (tmp_path / "run" / "seed-0" / "best.safetensors").read_bytes() != second
    assert run("train", config, "--seeds", 2)[0] == 1
    assert run("train", config, "--seeds", 2, "--resume")[0] == 0
    code, output = run("info", ensemble)
    assert (code, "members       2" in output) == (0, True), output
    assert "is a training run; give one of its models" in run("info", tmp_path / "run" / "seed-0")[1]
    said = run("evaluate", tmp_path / "run", data)[1]
    assert (
        f"run holds no .safetensors files; of its folders these do: {ensemble}, {tmp_path / 'run' / 'seed-0'}" in said
    ), said
    code, output = run("evaluate", ensemble, data)
    assert (code, "energy [meV/atom]" in output, output.splitlines()[-1][:6]) == (0, True, "spread"), output


def test_a_fresh_committee_holds_nothing_of_the_old_one(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=data, output=tmp_path / "run"))
    assert run("train", config, "--seeds", 3)[0] == 0
    ensemble = tmp_path / "run" / "ensemble"
    old = {path.name: path.read_bytes() for path in ensemble.glob("*.safetensors")}
    # without validation there is no best model, and the last one is taken
    config.write_text(CONFIG.format(data=data, output=tmp_path / "run").replace("fraction: 0.25", "fraction: 0.0"))
    code, output = run("train", config, "--seeds", 2, "--fresh")
    assert code == 0, output
    new = {path.name: path.read_bytes() for path in ensemble.glob("*.safetensors")}
    assert set(new) == {"seed-0.safetensors", "seed-1.safetensors"}
    assert all(new[name] != old[name] for name in new)
    assert list((tmp_path / "run" / "seed-2").glob("*.safetensors")) == []


def test_train_evaluate_info(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=data, output=tmp_path / "run"))
    code, output = run("train", config)
    assert (code, "done: 4 steps" in output) == (0, True), output
    code, output = run("train", config)
    assert (code, "use --resume" in output) == (1, True), output
    assert run("train", config, "--resume")[0] == 0
    assert run("train", config, "--fresh")[0] == 0
    assert "both given" in run("train", config, "--fresh", "--resume")[1]

    model = tmp_path / "run" / "best.safetensors"
    code, output = run("evaluate", model, data, "--plot", tmp_path / "parity.png", "--device", "cpu")
    assert code == 0, output
    assert "8 frames" in output
    assert "meV/atom" in output
    assert (tmp_path / "parity.png").exists()
    assert "there is no folder" in run("evaluate", model, data, "--plot", tmp_path / "nowhere" / "parity.png")[1]
    code, output = run("evaluate", model, data, "--energy-key", "energi")
    assert (code, "no frame has energy under the name 'energi'" in output) == (1, True), output

    code, output = run("info", model)
    assert code == 0, output
    assert "elements      Cu" in output
    assert "cutoff        3.0 Å" in output


def test_errors_are_one_line(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(data=data, output=tmp_path / "run") + "learning_rat: 1.0\n")
    code, output = run("train", config)
    assert code == 1
    assert "did you mean 'learning_rate'?" in output
    assert "Traceback" not in output
    code, output = run("info", tmp_path / "none.safetensors")
    assert code == 1
    assert output.startswith("error: there is no model")


def test_the_command_starts_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['andersonn', '--help']\n"
        "from ase_andersonn.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for command in ("train", "evaluate", "info"):
        assert command in done.stdout


def test_errors_that_need_no_torch_are_raised_before_it_is_loaded(tmp_path: Path, data: Path) -> None:
    """Not one of these errors may wait for seconds of imports."""
    good = CONFIG.format(data=data, output=tmp_path / "run")
    configs = {
        "typo.yaml": good + "learning_rat: 1.0\n",
        "utf16.yaml": good + "seed: -1\n",
        "data.yaml": good.replace(str(data), "nothing.extxyz"),
        "output.yaml": good.replace(str(tmp_path / "run"), str(data / "run")),
        "bytes.yaml": "",
    }
    for name, text in configs.items():
        (tmp_path / name).write_text(text, encoding="utf-16" if name == "utf16.yaml" else "utf-8")
    (tmp_path / "bytes.yaml").write_bytes(b"output: caf\xe9")
    (tmp_path / "empty").mkdir()
    said = {
        ("train", "nofile.yaml"): "error: there is no config nofile.yaml (working directory",
        ("train-classifier", "nofile.yaml"): "error: there is no config nofile.yaml (working directory",
        ("train", "."): "is a folder; give the YAML or JSON file of a run",
        ("train", "typo.yaml"): "did you mean 'learning_rate'?",
        ("train", "utf16.yaml"): "seed is -1",
        ("train", "bytes.yaml"): "is no text in UTF-8",
        ("train", "data.yaml"): "no file matches 'nothing.extxyz'",
        ("train", "output.yaml"): "is a file",
        ("train", "typo.yaml", "--resume", "--fresh"): "both given",
        ("evaluate", "mlearn-pbe", "nothing.xyz"): "no file matches 'nothing.xyz'",
        ("evaluate", "no-model", str(data)): "there is no model 'no-model'",
        ("evaluate", "mlearn-pbe", str(data), "--plot", "a.bmp"): "a.bmp has an unknown ending",
        ("info", "no-model"): "there is no model 'no-model'",
        ("classify", "nothing!.cif"): "nothing!.cif",
        ("classify", "empty"): "there is no structure in empty",
        ("classify", str(data), "--labels", "colour"): "no label set 'colour'",
        ("classify", str(data), "--model", "no-model"): "there is no model 'no-model'",
        ("classify", str(data), "--out", "a.txt"): "unknown ending",
        ("classify", str(data), "--out", str(data)): "unknown ending",
        ("classify", str(data), "--plot", "a.bmp"): "unknown ending",
    }
    code = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom ase_andersonn.cli import app\n"
        "for args in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, args)\n"
        "    print(json.dumps([done.exit_code, done.output, 'torch' in sys.modules or 'ase' in sys.modules]))"
    )
    command = [sys.executable, "-c", code, json.dumps(list(said))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    for (args, text), line in zip(said.items(), done.stdout.splitlines(), strict=True):
        exit_code, output, loaded = json.loads(line)
        assert (exit_code, text in output, loaded) == (1, True, False), (args, output)
        assert len(output.splitlines()) == 1, output


def test_names_that_the_terminal_cannot_show() -> None:
    """Bytes that are no UTF-8, on a terminal of ASCII."""
    code = "import sys\nfrom ase_andersonn.cli import main\nsys.argv[0] = 'andersonn'\nmain()"
    command = [sys.executable, "-c", code, "train", b"caf\xe9.yaml"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no config caf"), done.stderr
    assert "Traceback" not in done.stderr
