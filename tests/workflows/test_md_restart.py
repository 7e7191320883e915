"""Molecular dynamics: interrupted runs resume to the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read
from md_structures import copper
from small_models import small_calculator

from ase_andersonn.workflows import _md_run
from ase_andersonn.workflows.md import molecular_dynamics
from ase_andersonn.workflows.monte_carlo import monte_carlo


def calculators() -> dict[str, tuple[Any, Atoms]]:
    argon = bulk("Ar", cubic=True, a=5.3)
    return {
        "EMT": (EMT, copper()),
        "LennardJones": (lambda: LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0), argon),
        "AndersoNN": (small_calculator, bulk("Si")),
    }


CASES = [("EMT", ensemble) for ensemble in ("nve", "langevin", "bussi", "npt")]
CASES += [("LennardJones", "npt"), ("AndersoNN", "npt")]


@pytest.mark.parametrize(("name", "ensemble"), CASES)
def test_a_run_goes_on_bit_for_bit(name: str, ensemble: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_md_run, "FRESH_EVERY", 20)
    make, atoms = calculators()[name]
    options = {"ensemble": ensemble, "temperature": 200.0, "timestep": 1.0, "seed": 1, "every": 7}

    def run(stem: str, steps: int, **more: Any) -> Any:
        files = {"trajectory": f"{stem}.traj", "log": f"{stem}.log", "restart": f"{stem}.npz"}
        return molecular_dynamics(atoms, make(), steps=steps, **files, **options, **more)

    whole = run("a", 50)
    first = run("b", 40)
    again = run("b", 50, resume=True)
    assert (first.steps, again.steps, again.stopped_because) == (40, 50, None)
    for ours, theirs in ((again.atoms, whole.atoms), (read("b.traj"), read("a.traj"))):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        np.testing.assert_array_equal(ours.get_momenta(), theirs.get_momenta())
        np.testing.assert_array_equal(ours.cell.array, theirs.cell.array)
    np.testing.assert_array_equal(again.total_energies, whole.total_energies)
    assert again.atoms.get_potential_energy() == whole.atoms.get_potential_energy()
    np.testing.assert_array_equal(again.atoms.get_forces(), whole.atoms.get_forces())
    assert Path("a.log").read_text() == Path("b.log").read_text()
    assert len(read("a.traj", ":")) == len(read("b.traj", ":")) == len(whole.times) == 8
    assert run("b", 50, resume=True).atoms == again.atoms  # nothing left to do


KILLED = """
import os, signal, sys
from ase.calculators.emt import EMT
from ase.io import read
from ase_andersonn.workflows import _md_run, md

class Killed(EMT):
    calls = 0
    def calculate(self, *args, **kwargs):
        Killed.calls += 1
        if Killed.calls == 75:
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        super().calculate(*args, **kwargs)

_md_run.FRESH_EVERY, _md_run.SAVE_SECONDS = 20, 0.0
try:
    md.molecular_dynamics(read("start.traj"), Killed(), ensemble="bussi", temperature=300.0, steps=100, seed=1,
        every=3, trajectory="b.traj", log="b.log", restart="b.npz")
except KeyboardInterrupt as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_run_that_was_killed_goes_on_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_md_run, "FRESH_EVERY", 20)
    copper().write("start.traj")
    done = subprocess.run([sys.executable, "-c", KILLED, name], capture_output=True, text=True, check=False)
    if name == "SIGKILL":
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.stdout.startswith("interrupted after ")
        assert name in done.stdout
        assert "resume goes on from step 60" in done.stdout
    options = {"ensemble": "bussi", "temperature": 300.0, "steps": 100, "seed": 1, "every": 3}
    assert len(read("b.traj", ":")) > 21  # what was written after the state goes
    runs = [
        molecular_dynamics(
            read("start.traj"), EMT(), trajectory=f"{stem}.traj", log=f"{stem}.log", restart=f"{stem}.npz",
            resume=True, **options,
        )
        for stem in "ab"
    ]  # fmt: skip
    np.testing.assert_array_equal(runs[0].atoms.positions, runs[1].atoms.positions)
    assert Path("a.log").read_text() == Path("b.log").read_text()
    frames = [read(f"{stem}.traj", ":") for stem in "ab"]
    assert len(frames[0]) == len(frames[1]) == 34
    for ours, theirs in zip(*frames, strict=True):
        np.testing.assert_array_equal(ours.positions, theirs.positions)
        assert ours.info == theirs.info
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


def test_a_signal_ends_a_run_after_the_step(tmp_path: Path) -> None:
    class Interrupted(EMT):
        calls = 0

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            self.calls += 1
            if self.calls == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            super().calculate(*args, **kwargs)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="interrupted after") as raised:
        molecular_dynamics(copper(), Interrupted(), temperature=300.0, steps=50, seed=1, every=1)
    run = raised.value.result  # type: ignore[attr-defined]
    assert run.steps < 6
    assert run.stopped_because == f"after {run.steps} steps by SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before
    json.dumps(run.to_dict(), allow_nan=False)
    run.plot(tmp_path / "md.png")


def test_states_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    options: dict[str, Any] = {"temperature": 300.0, "seed": 1, "restart": path}
    molecular_dynamics(copper(), EMT(), steps=3, **options)
    good = path.read_bytes()

    def refused(text: str, atoms: Atoms | None = None, calc: Any = None, **more: Any) -> None:
        before = path.read_bytes()
        with pytest.raises(ValueError, match=text):
            molecular_dynamics(atoms or copper(), calc or EMT(), steps=5, **{**options, "resume": True, **more})
        assert path.read_bytes() == before

    refused("is there already", resume=False)
    refused("another structure", atoms=copper(0.03))
    refused("temperature was 300.0 and is 400.0", temperature=400.0)
    refused("seed was 1 and is 2", seed=2)
    refused("another calculator", calc=LennardJones(sigma=2.2, epsilon=0.3))
    for k in range(0, len(good), 97):
        path.write_bytes(good[:k] + bytes([good[k] ^ 4]) + good[k + 1 :])
        refused("no state of molecular dynamics")
    path.write_bytes(good[:-50])
    refused("no state of molecular dynamics")
    path.unlink()
    monte_carlo(copper(), EMT(), temperature=300.0, sweeps=1, restart=path)
    refused("a file of another kind")
    path.write_bytes(good)
    assert molecular_dynamics(copper(), EMT(), steps=5, **options, resume=True).steps == 5


def test_a_trajectory_that_is_not_the_states_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"temperature": 300.0, "seed": 1, "every": 1, "restart": tmp_path / "x.npz"}
    options |= {"trajectory": tmp_path / "x.traj", "log": tmp_path / "x.log"}
    molecular_dynamics(copper(), EMT(), steps=3, **options)
    for name in ("x.traj", "x.log"):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(ValueError, match=r"cannot be read|shorter"):
            molecular_dynamics(copper(), EMT(), steps=5, resume=True, **options)
        (tmp_path / name).write_bytes(good)
    assert molecular_dynamics(copper(), EMT(), steps=5, resume=True, **options).steps == 5
    assert len(read(tmp_path / "x.traj", ":")) == 6
