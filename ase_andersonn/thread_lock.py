"""A lock that survives copies, pickles and forks."""

import os
import threading


class ThreadLock:
    """A lock that one thread has at a time, as often as it likes; a copy is another lock, also that of a fork."""

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # a thread that this process does not have may hold it
            self._lock, self._process = threading.RLock(), os.getpid()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["ThreadLock"], tuple[()]]:
        return ThreadLock, ()
