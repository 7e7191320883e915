"""The `andersonn` command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from typer.testing import CliRunner

from ase_andersonn.cli import app
from ase_andersonn.models.files import packaged_classifiers, packaged_models

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


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.output


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
    assert "is a training run; name one of its models" in run("info", tmp_path / "run" / "seed-0")[1]
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
    assert (code, "say --resume" in output) == (1, True), output
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
