"""Ctrl-C and SIGTERM as a wish to stop after the present step."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignal:
    """Within its context the first SIGINT or SIGTERM is kept as `name`; a second one interrupts at once.

    Outside the main thread, where Python allows no signal handlers, there is never one.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.name is not None:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
