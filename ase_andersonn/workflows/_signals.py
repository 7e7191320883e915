"""Error of a simulation that Ctrl-C or SIGTERM ended."""

from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a simulation after a step; `result` is what it gave so far."""

    def __init__(self, result: Any) -> None:
        super().__init__(f"interrupted {result.stopped_because}")
        self.result = result
