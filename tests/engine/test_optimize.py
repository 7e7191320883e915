"""The choice of the fastest way to run a model: it gives eager's results, and is kept by the machine's cache."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import invoke
from small_models import cartesian_model, rattled, silicon, small_model

from ase_andersonn import AndersoNN
from ase_andersonn.checkpoints.checkpoint import save_model
from ase_andersonn.engine.native import library
from ase_andersonn.engine.native.attention import AttentionKernel
from ase_andersonn.engine.optimize import kept, trial
from ase_andersonn.engine.optimize.choose import _judged, optimize, optimized
from ase_andersonn.engine.optimize.kept import Candidate, Choice, choice_path, dependencies, keep_choice, kept_choice
from ase_andersonn.potentials.base import EnergyModel

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(library.find_compiler() is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.CACHE, str(folder := tmp_path_factory.mktemp("built")))
        if library.find_compiler() is not None:
            library.build()
        return folder


@pytest.fixture(autouse=True)
def cache(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of each test's own with the kernels; small structures, and few calls."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for path in built.iterdir():
        (folder / path.name).symlink_to(path)
    monkeypatch.setenv(library.CACHE, str(folder))
    monkeypatch.setattr(trial, "LARGE", 4)
    monkeypatch.setattr(trial, "SMALL_CALLS", 2)
    monkeypatch.setattr(trial, "LARGE_CALLS", 1)
    monkeypatch.setattr(kept, "_unwritten", {})
    library.load.cache_clear()
    yield folder
    library.load.cache_clear()


def stored(folder: Path) -> Path:
    (path,) = folder.glob("choice-*.json")
    return path


def choice_of(name: str, block: int, **others: Any) -> Choice:
    return Choice((Candidate(name, block, "chosen", **others),), (8, 64))


def backend(calc: AndersoNN) -> Any:
    calc.get_forces(silicon())
    return calc.diagnostics["backend"]


@needs_compiler
def test_every_candidate_gives_what_eager_gives() -> None:
    """In float64 to 1e-10 eV/atom and eV/Å (relative where forces are large), in float32 to rounding."""
    choice, why = optimize(small_model(n_message=3), CPU)
    assert why == ""
    timed = [candidate for candidate in choice.candidates if candidate.large_us is not None]
    assert {candidate.name for candidate in timed} == {"eager", "native"}
    for candidate in timed:
        assert candidate.verdict == "chosen" or candidate.verdict.startswith(("slower than", "not 3% faster"))
        assert candidate.energy_error is not None
        assert 0.0 < candidate.energy_error < 1e-4, "in float32, which is not exact"
    found = AndersoNN(small_model(n_message=3), dtype="float64", tol=1e-13, optimize=True)
    exact = AndersoNN(small_model(n_message=3), dtype="float64", tol=1e-13, compile=False)
    for atoms in (silicon(), rattled(silicon() * (4, 3, 3))):
        np.testing.assert_allclose(found.get_forces(atoms), exact.get_forces(atoms), atol=1e-10)
        np.testing.assert_allclose(found.get_stress(atoms), exact.get_stress(atoms), atol=1e-10)
        assert found.get_potential_energy(atoms) == pytest.approx(exact.get_potential_energy(atoms), abs=1e-10 * 8)
    assert found.diagnostics["backend"] == choice.chosen.name


@needs_compiler
@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (1.0 + 1e-7, r"wrong: energies differ by .* eV/atom in float64, allowed is 1.0e-10"),
        (1.1, r"wrong: energies differ by .* eV/atom in float32, allowed is"),
        (math.nan, "failed: native results do not converge"),
    ],
)
def test_wrong_numbers_are_refused(factor: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are wrong by less than float32 can tell."""
    right = AttentionKernel.values
    monkeypatch.setattr(AttentionKernel, "values", lambda *args: tuple(factor * x for x in right(*args)))
    choice, _ = optimize(small_model(), CPU)
    (native,) = (candidate for candidate in choice.candidates if candidate.name == "native")
    assert re.match(text, native.verdict), native.verdict
    assert native.large_us is None, "and are not timed"
    assert choice.chosen.name == "eager"
    assert backend(AndersoNN(small_model())) == "eager", "though the kernels are built"


@needs_compiler
def test_a_candidate_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise MemoryError("no memory for it\nsecond line")

    monkeypatch.setattr(AttentionKernel, "values", fail)
    choice, _ = optimize(small_model(), CPU)
    (native,) = (candidate for candidate in choice.candidates if candidate.name == "native")
    assert native.verdict == "failed: no memory for it"
    assert choice.chosen.name == "eager"


SCRIPT = """
import sys
from ase_andersonn import AndersoNN
from ase_andersonn.engine.optimize import choose
def never(*args, **options):
    raise AssertionError("measured again")
choose.optimize = never
calc = AndersoNN(sys.argv[1], optimize=True)
print(calc.evaluator._compile_choice.kept.chosen.block)
"""


def test_a_second_process_uses_the_choice(cache: Path, tmp_path: Path) -> None:
    model = small_model(dtype=torch.float32)
    save_model(model, tmp_path / "model.safetensors")
    assert keep_choice(choice_of("eager", 77), model, CPU) == ""
    done = _python(SCRIPT, tmp_path / "model.safetensors")
    assert (done.returncode, done.stdout.strip()) == (0, "77"), done.stderr


def _python(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_calculator_does_as_chosen(dtype: str) -> None:
    """In both precisions, without being asked; block sizes arrive where the encoder reads them."""
    model = small_model()
    keep_choice(choice_of("eager", 3), model, CPU)
    calc = AndersoNN(model, dtype=dtype)
    assert backend(calc) == "eager"
    assert [compiled.encoder.block for compiled in calc.model._compiled.values()] == [3]


def test_a_choice_is_for_one_model_machine_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    model, choice = small_model(), choice_of("eager", 3)
    keep_choice(choice, model, CPU)
    assert kept_choice(model, CPU) == choice
    assert kept_choice(small_model(seed=1), CPU) is None
    for name in ("torch", "ase-andersonn", "threads", "kernels", "compiler", "device"):
        with monkeypatch.context() as patch:
            other = {**dependencies(model, CPU), name: "another"}
            patch.setattr(kept, "dependencies", lambda *args, other=other: other)
            assert kept_choice(model, CPU) is None, name
    assert kept_choice(model, CPU) == choice


def _foreign(text: str) -> str:
    """A whole file of another machine."""
    body = json.loads(text)
    del body["sha256"]
    body["dependencies"]["kernels"] = "another"
    return json.dumps({**body, "sha256": kept._digest(body)})


def _with(**chosen: Any) -> Any:
    """A whole file with other entries of its candidate."""

    def change(text: str) -> str:
        body = json.loads(text)
        del body["sha256"]
        body["candidates"][0] |= chosen
        return json.dumps({**body, "sha256": kept._digest(body)})

    return change


DAMAGES = {
    "empty": lambda text: "",
    "cut short": lambda text: text[: len(text) // 2],
    "a digit": lambda text: text.replace('"block": 77', '"block": 78'),
    "another machine's": _foreign,
    "no dictionary": lambda text: "[]",
    "a number": lambda text: "3",
    "an unknown candidate": _with(name="magic"),
    "no block": _with(block=0),
    "a block that is no number": _with(block="77"),
    "an unknown field": _with(colour="red"),
    "none is chosen": _with(verdict=""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_none_and_is_replaced(damage: str, cache: Path) -> None:
    model = small_model()
    keep_choice(choice_of("eager", 77), model, CPU)
    path = stored(cache)
    path.write_text(DAMAGES[damage](path.read_text()))
    assert kept_choice(model, CPU) is None
    AndersoNN(model)  # costs time at most
    choice = optimized(model, CPU)
    assert kept_choice(model, CPU) == choice
    assert stored(cache) == path


def test_a_folder_in_its_place(cache: Path) -> None:
    model = small_model()
    choice_path(dependencies(model, CPU)).mkdir()
    assert kept_choice(model, CPU) is None
    assert "directory" in keep_choice(choice_of("eager", 77), model, CPU)
    assert kept_choice(model, CPU) == choice_of("eager", 77), "in this process"


def test_an_unwritable_cache_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(library.CACHE, str(tmp_path / "file" / "cache"))
    model = small_model()
    choice, why = optimize(model, CPU)
    assert "file" in why
    assert optimized(model, CPU) is choice, "it is kept in this process"
    assert backend(AndersoNN(model, optimize=True)) == "eager"
    save_model(small_model(dtype=torch.float32), tmp_path / "model.safetensors")
    code, output, error = invoke("optimize", tmp_path / "model.safetensors")
    assert (code, "cannot be kept" in error) == (0, True), error
    assert "chosen" in output


def test_without_a_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in cache.iterdir():
        path.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    choice, why = optimize(small_model(), CPU, inductor=True)
    verdicts = {candidate.name: candidate.verdict for candidate in choice.candidates if candidate.large_us is None}
    assert why == ""
    assert verdicts.keys() == {"native", "inductor"}
    assert all("no C++ compiler found" in verdict for verdict in verdicts.values())
    assert choice.chosen.name == "eager"
    assert backend(AndersoNN(small_model(), optimize=True)) == "eager"


@needs_compiler
def test_two_processes_at_once(cache: Path, tmp_path: Path) -> None:
    """Both choose, one file remains, and it is whole."""
    save_model(small_model(dtype=torch.float32), tmp_path / "model.safetensors")
    script = "import sys; from ase_andersonn import AndersoNN; from ase_andersonn.engine.optimize import trial; "
    script += "trial.LARGE = 4; AndersoNN(sys.argv[1], optimize=True)"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", script, str(tmp_path / "model.safetensors")]
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".sha256", ".so"], "and nothing else"
    found = kept_choice(small_model(dtype=torch.float32), CPU)
    assert found is not None
    assert found.has_timed("native")


def test_a_compiler_is_waited_for_only_where_asked() -> None:
    """A choice of PyTorch's compiler is taken up at once by optimize=True alone."""
    model = cartesian_model()
    keep_choice(choice_of("inductor", 256, large_us=1.0), model, CPU)
    modes = [AndersoNN(model, optimize=x).evaluator._compile_choice.mode(0.0) for x in (True, False)]
    assert modes == [True, False]


def test_the_verdicts() -> None:
    """Another block size has to be 3 % faster; a kind is chosen by both structures."""
    kinds = [Candidate("eager", 256, "", 10.0, 10.0), Candidate("native", 256, "", 5.0, 5.0)]
    for large, expected in ((4.9, 256), (4.8, 64)):
        sizes = [kinds[1], Candidate("native", 64, "", 5.0, large), Candidate("native", 128, "wrong: all")]
        found = _judged(kinds, sizes)
        assert [c.block for c in found if c.verdict == "chosen"] == [expected]
        assert found[0].verdict == "slower than native"
        assert found[-1].verdict == "wrong: all"
        assert len(found) == 4
    assert kept.log_mean(kinds[0]) == pytest.approx(math.log(10.0))
    assert kept.log_mean(dataclasses.replace(kinds[0], large_us=None)) == math.inf


def test_wrong_arguments(tmp_path: Path, cache: Path) -> None:
    for wanted, mode in (("yes", "auto"), (True, "native"), (True, False)):
        with pytest.raises(ValueError, match="optimize is"):
            AndersoNN(small_model(), optimize=wanted, compile=mode)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has one way to run"):
        AndersoNN("ising", optimize=True)
    assert not list(cache.glob("choice-*"))
    for arguments, code in ((["nothing"], 1), (["ising"], 1), (["universal", "--device", "moon"], 1), ([], 2)):
        assert invoke("optimize", *arguments)[0] == code, arguments


def test_the_command(tmp_path: Path, cache: Path) -> None:
    """A committee's members each have a choice; the table and the JSON document say the same."""
    models: list[EnergyModel] = [small_model(seed, torch.float32) for seed in range(2)]
    (tmp_path / "models").mkdir()
    for seed, model in enumerate(models):
        save_model(model, tmp_path / "models" / f"{seed}.safetensors")
    code, output, error = invoke("optimize", tmp_path / "models", "--json")
    assert (code, error) == (0, "")
    data = json.loads(output)
    assert len(data["choices"]) == 2
    for entry, model in zip(data["choices"], models, strict=True):
        found = kept_choice(model, CPU)
        assert found is not None
        assert entry["chosen"] == dataclasses.asdict(found.chosen)
    code, output, _ = invoke("optimize", tmp_path / "models")
    assert code == 0
    assert output.count("chosen") == 2
    assert "µs/atom, 8 atoms" in output
    assert len(list(cache.glob("choice-*"))) == 2
