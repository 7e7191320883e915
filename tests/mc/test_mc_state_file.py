"""State files: damage is reported, and one simulation at a time uses a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damage import accidents
from test_mc_restart import everything, local, spins

from ase_andersonn.mc import ParallelTempering


def tempering(**kwargs):
    return ParallelTempering([spins(seed=1), spins(seed=2)], seed=3, **kwargs)


@pytest.mark.parametrize("make", [local, tempering])
def test_every_damage_is_detected(tmp_path, make):
    path = tmp_path / "mc.npz"
    simulation = make(restart=path)
    simulation.run(3)
    simulation.save()
    for damage in accidents(path):
        with pytest.raises(
            ValueError, match=r"mc\.npz is not a readable state file of a Monte Carlo run .* Move it away"
        ) as caught:
            make(restart=path)
        assert type(caught.value) is ValueError, damage
    assert make(restart=path).nsteps == 3


def test_a_state_of_before_there_were_checksums_is_read(tmp_path):
    path = tmp_path / "mc.npz"
    mc = local(seed=3, restart=path)
    mc.run(10)
    mc.save()
    with np.load(path) as file:
        arrays = dict(file)
    state = json.loads(arrays.pop("state").tobytes())
    for number, right in ((1, True), (2, False), (3, False)):
        text = np.frombuffer(json.dumps({**state, "format": number}).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez(file, state=text, **arrays)
        if right:
            again = local(seed=4, restart=path)
            assert everything(again) == everything(mc)
            again.run(1)
        else:
            with pytest.raises(ValueError, match="its checksum is missing" if number == 2 else "its format is 3"):
                local(restart=path)


@pytest.mark.parametrize(("first", "second"), [(spins, tempering), (tempering, spins), (local, tempering)])
def test_a_state_of_another_kind_of_simulation(tmp_path, first, second):
    path = tmp_path / "mc.npz"
    first(restart=path).save()
    with pytest.raises(ValueError, match=r"mc\.npz belongs to a run with other settings"):
        second(restart=path)


RUNNER = """
import sys; sys.path[:0] = sys.argv[1:3]
from test_mc_state_file import local, tempering
simulation = {"local": local, "tempering": tempering}[sys.argv[3]](restart=sys.argv[4], restart_interval=1)
for _ in simulation.irun(10**9):
    if simulation.nsteps == 1:
        print("runs", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("make", [local, tempering])
def test_the_process_that_runs_with_a_state_file_is_named(tmp_path, make):
    path, here = tmp_path / "mc.npz", Path(__file__).parent
    early = make(restart=path)
    command = [sys.executable, "-c", RUNNER, str(here), str(here.parent), make.__name__, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "runs\n"
            expected = rf"mc\.npz is in use by process {other.pid} on .* give another file as restart"
            for use in (lambda: make(restart=path), lambda: early.run(1), early.save):
                with pytest.raises(RuntimeError, match=expected):
                    use()
            assert early.nsteps == 0
        finally:
            other.kill()
    assert make(restart=path).nsteps == 1  # it does not hold the file any more
    with pytest.raises(ValueError, match="was written by another simulation since this one started"):
        early.run(1)


def test_two_simulations_in_one_process(tmp_path):
    path = tmp_path / "mc.npz"
    first = local(seed=3, restart=path, restart_interval=5)
    second = local(seed=4, restart=path)
    steps = first.irun(20)
    next(steps)
    with pytest.raises(RuntimeError, match=f"in use by process {os.getpid()} "):
        local(restart=path)
    for _ in steps:
        pass
    with pytest.raises(ValueError, match="written by another simulation"):
        second.run(5)
    third = local(restart=path)
    assert third.nsteps == 20
    third.run(10)
    third.save()
    with pytest.raises(ValueError, match="written by another simulation since this one read or wrote it"):
        first.save()
    first.save(tmp_path / "other.npz")
    path.unlink()
    first.run(5)  # nothing is lost by that
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mc.npz", "other.npz"]


def test_a_loop_that_was_left_holds_nothing(tmp_path):
    path = tmp_path / "mc.npz"
    for _ in local(restart=path).irun(10):
        break
    mc = local(restart=path)
    mc.attach(lambda: 1 / 0, 3)
    with pytest.raises(ZeroDivisionError):
        mc.run(10)
    local(restart=path).run(5)


def test_a_state_file_in_a_folder_that_is_not_there(tmp_path):
    mc = local(restart=tmp_path / "none" / "mc.npz")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none to write mc\.npz into"):
        mc.run(1)
