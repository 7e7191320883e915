"""The driver's side of a model's process, and what is known of that model so far."""

from __future__ import annotations

import json
import select
import statistics
import subprocess
from pathlib import Path
from typing import Any

from common import REPOSITORY, single_thread_environment
from speed_models import Model
from speed_worker import SYSTEMS

WORKER = Path(__file__).resolve().with_name("speed_worker.py")
N_ATOMS = {"Si8": 8, "cluster27": 27, "Si64": 64, "Si512": 512, "Cu864": 864, "Si1728": 1728}
LONGEST_ANSWER_S = 300.0


class NotMeasuredError(Exception):
    """Why a figure is missing."""


class Worker:
    """A model's process: `ask` sends one request and waits for its answer; `stages` holds what was measured so far."""

    def __init__(self, name: str, model: Model, python: str, log: Path, file: Path | None) -> None:
        self.name, self.model, self.file = name, model, file
        self.spent_s = 0.0
        self.stages: dict[str, dict[str, Any]] = {}
        self.failure = ""
        environment = single_thread_environment()
        environment.pop("PYTHONPATH", None)
        if name == "andersonn":
            environment["PYTHONPATH"] = str(REPOSITORY)
        self.command = [python, str(WORKER), name, *([str(file)] if file else [])]
        with log.open("w") as stderr:
            if file is not None and not file.exists():
                self._prepare(environment, stderr)
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            )
        self.facts: dict[str, Any] = {}

    def _prepare(self, environment: dict[str, str], stderr: Any) -> None:
        try:
            subprocess.run(
                [*self.command, "--prepare"],
                env=environment,
                stdout=stderr,
                stderr=stderr,
                timeout=LONGEST_ANSWER_S,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise NotMeasuredError("its model could not be compiled") from error

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.failure:
            raise NotMeasuredError(self.failure)
        try:
            self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], LONGEST_ANSWER_S)
            line = self.process.stdout.readline() if ready else ""
        except BrokenPipeError:
            line = ""
            ready = [self.process.stdout]
        if not line:
            self.failure = "its process ended" if ready else f"no answer within {LONGEST_ANSWER_S:.0f} s"
            self.stop()
            raise NotMeasuredError(self.failure)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NotMeasuredError(answer["error"])
        return answer

    def stop(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=0 if self.failure else 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def measured(self) -> dict[str, dict[str, Any]]:
        """The systems it was timed on, smallest first."""
        done = {name: stage for name, stage in self.stages.items() if name in SYSTEMS and "reason" not in stage}
        return dict(sorted(done.items(), key=lambda item: N_ATOMS[item[0]]))

    def wall_s(self, n_atoms: int) -> float:
        """What a call should take, from the largest system so far; 0 where nothing is known yet."""
        done = list(self.measured().values())
        return statistics.median(done[-1]["wall_s"]) / done[-1]["n_atoms"] * n_atoms if done else 0.0

    def peak_mib(self, n_atoms: int) -> float:
        """What a call's peak should be, from the two largest systems so far."""
        done = list(self.measured().values())
        if len(done) < 2:
            return 0.0
        small, large = done[-2:]
        slope = (large["peak_mib"] - small["peak_mib"]) / (large["n_atoms"] - small["n_atoms"])
        return float(large["peak_mib"] + max(0.0, slope) * (n_atoms - large["n_atoms"]))
