"""Ctrl-C and SIGTERM as a wish to stop at the next good moment."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Within its context the first SIGINT or SIGTERM sets `asked`; a second one interrupts at once.

    Outside the main thread, where Python allows no signal handlers, it never asks.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
