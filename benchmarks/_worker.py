"""Processes of other environments that are asked in turn: requests and answers as lines of JSON on stdin and stdout.

Only the standard library is needed, so both sides run in environments that hold none of this project's requirements.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from benchmarks._common import REPOSITORY, rotated, single_thread_environment


class NotMeasuredError(Exception):
    """Why a figure is missing."""


def command_of(python: str, module: str, *arguments: object) -> list[str]:
    return [python, "-m", f"benchmarks.{module}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread, and this checkout as the only folder on the path besides the interpreter's own."""
    return single_thread_environment() | {"PYTHONPATH": str(REPOSITORY)}


def in_own_process(module: str, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
    """The JSON object that a module of `benchmarks` prints as its last line."""
    command = command_of(python, module, *arguments)
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Worker:
    """A module of `benchmarks` that runs `serve` in another process.

    Args:
        python: interpreter of its environment.
        module: name within `benchmarks`, as in `"speed.training_worker"`.
        arguments: of its command line.
        log: file for what it writes to stderr; this process's stderr where None.
        timeout: seconds to wait for an answer; None waits for ever.
    """

    def __init__(
        self,
        python: str,
        module: str,
        *arguments: object,
        log: TextIO | None = None,
        timeout: float | None = None,
    ) -> None:
        self.command, self.timeout, self.failure = command_of(python, module, *arguments), timeout, ""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        self.process = subprocess.Popen(self.command, env=environment(), **pipes)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            NotMeasuredError: the request failed, the process ended or did not answer in time.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.failure:
            raise NotMeasuredError(self.failure)
        try:
            self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self.process.stdin.flush()
            ready = bool(select.select([self.process.stdout], [], [], self.timeout)[0])
            line = self.process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = True, ""
        if not line:
            self.failure = "its process ended" if ready else f"no answer within {self.timeout:.0f} s"
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


def asked_in_turn(
    workers: Mapping[str, Worker], repeats: int, op: str, **arguments: Any
) -> dict[str, list[dict[str, Any]]]:
    """The answers of each worker to the same request, repeated; another worker begins every round."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for turn in range(repeats):
        for name in rotated(list(workers), turn):
            answers[name].append(workers[name].ask(op, **arguments))
    return answers


def stop_all(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.stop()


def serve(requests: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers requests, functions by the name of their `op`, until stdin ends.

    What a library prints goes to stderr, so that stdout carries answers alone.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = requests[request.pop("op")](**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def forget_peak() -> None:
    """Restarts the kernel's record of the peak; where it refuses, the peak since the start is kept."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
