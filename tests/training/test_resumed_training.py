"""Training runs that are killed or interrupted resume to the same bits."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interrupted import Killed, assert_same_run, killed_after

from ase_andersonn.config import write_config
from ase_andersonn.training import TrainConfig, train
from ase_andersonn.training.potential_trainer import Trainer
from ase_andersonn.training.run_checkpoint import read_checkpoint


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("steps", "checkpoint_minutes"), [(1, 0.0), (5, 0.0), (8, 60.0)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    config: TrainConfig, tmp_path: Path, steps: int, checkpoint_minutes: float
) -> None:
    config = replace(config, energy_weight_final=20.0, checkpoint_minutes=checkpoint_minutes)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    assert whole.finished
    assert whole.position.step > steps
    with pytest.raises(Killed):
        killed_after(steps, Trainer(config)).fit()
    resumed = train(config, resume=True)
    assert resumed.position.step == whole.position.step
    assert_same_run(tmp_path / "whole", tmp_path / "run")


SLOW_RUN = """
import sys, time
from ase_andersonn.config import read_config
from ase_andersonn.training import TrainConfig
from ase_andersonn.training.potential_trainer import Trainer

class SlowTrainer(Trainer):
    def step(self, indices):
        super().step(indices)
        time.sleep(0.2)

SlowTrainer(read_config(TrainConfig, sys.argv[1])).fit()
"""


@pytest.mark.usefixtures("one_thread")
def test_a_run_survives_kill_9(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, checkpoint_minutes=0.0)
    write_config(config, tmp_path / "config.yaml")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    process = start(SLOW_RUN, tmp_path / "config.yaml")
    try:
        wait_for(lambda: checkpoint.exists() and steps_in(checkpoint) >= 2, process)
    finally:
        process.kill()
        process.wait()
    killed_at = steps_in(checkpoint)
    whole = train(replace(config, output=str(tmp_path / "whole")))
    assert killed_at < whole.position.step
    train(config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("one_thread")
def test_a_signal_saves_and_stops(config: TrainConfig, tmp_path: Path, number: signal.Signals) -> None:
    class Interrupted(Trainer):
        def step(self, indices: list[int]) -> None:
            if self.position.step == 2:
                os.kill(os.getpid(), number)
            super().step(indices)

    before = signal.getsignal(number)
    stopped = Interrupted(config)
    stopped.fit()
    assert signal.getsignal(number) is before
    assert not stopped.finished
    assert stopped.position.step == 3  # the step during which the signal came is still done
    assert steps_in(tmp_path / "run" / "checkpoint.safetensors") == 3
    train(config, resume=True)
    train(replace(config, output=str(tmp_path / "whole")))
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_an_existing_run_is_not_overwritten_by_accident(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, max_epochs=1)
    train(config)
    with pytest.raises(FileExistsError, match="--resume"):
        train(config)
    assert train(config, resume=True).position.epoch == 1  # nothing left to do
    assert len(train(config, fresh=True).log.read()) == 1
    with pytest.raises(ValueError, match=r"learning_rate: 0\.002 then, 0\.5 now"):
        train(replace(config, learning_rate=0.5), resume=True)
    longer = train(replace(config, max_epochs=2), resume=True)
    assert longer.position.epoch == 2
    data = tmp_path / "frames.extxyz"
    data.write_text(data.read_text().replace("energy=", "energy=1"))
    with pytest.raises(ValueError, match="other data"):
        train(config, resume=True)


def steps_in(checkpoint: Path) -> int:
    step: int = read_checkpoint(checkpoint)[1]["position"]["step"]
    return step


def start(code: str, *args: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], env=environment)


def wait_for(condition: Any, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, "the run ended too early"
        time.sleep(0.05)
    raise AssertionError("the run did not come far enough within a minute")
