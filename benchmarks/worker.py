"""A benchmark's side of a process in another environment: a line to its stdin, a JSON object from its stdout."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from common import REPOSITORY, single_thread_environment


class Worker:
    """The process, with one thread; `facts` is what it says first.

    Args:
        python: interpreter of its environment.
        script: name of a file in this folder.
        arguments: of the script.
        own: whether it uses this project, of which other environments know nothing.
    """

    def __init__(self, python: str, script: str, *arguments: object, own: bool) -> None:
        environment = single_thread_environment()
        environment.pop("PYTHONPATH", None)
        if own:
            environment["PYTHONPATH"] = str(REPOSITORY)
        self.command = [python, str(Path(__file__).with_name(script)), *map(str, arguments)]
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"a process ended; run it by itself to see why: {' '.join(self.command)}")

    def ask(self, line: object = "") -> dict[str, Any]:
        """Its answer to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
