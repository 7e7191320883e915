"""Blocks spread over the workers of a Dask client; each result as soon as it is there, whichever worker had it.

A block whose worker dies is begun again elsewhere, so that a killed worker costs time only.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

AHEAD = 2
"""Blocks for each worker that are on their way at a time."""
SUBMISSIONS = 3
"""How often a block is handed to the scheduler, which gives up one that four workers died with."""
LOOK = 0.5
"""Seconds between looks at whether there are workers still."""
KEPT = "All that was computed so far is kept, and resume goes on with it."


class WorkersDied(RuntimeError):
    """The workers that computed a block died, again and again."""


class Held:
    """A callable between workers, as a pickle, made once a worker: Dask takes models apart, which fails for these.

    Args:
        data: of `pickle.dumps`.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, argument: Any) -> Any:
        if self._work is None:
            self._work = pickle.loads(self.data)
        return self._work(argument)  # type: ignore[misc]

    def __reduce__(self) -> Any:
        return Held, (self.data,)


def _call(held: Held, argument: Any) -> Any:
    return held(argument)


def spread(
    work: Callable[[Any], Any], arguments: Sequence[Any], client: Any, patience: float
) -> Iterator[tuple[int, Any]]:
    """`work(argument)` of every argument with its index, in the order in which they are done.

    Args:
        work: picklable, and without effects: where a worker dies it is called again.
        arguments: picklable.
        client: a Dask client.
        patience: seconds without any worker after which the work is given up.

    Yields:
        index, and what came out; `WorkersDied` in its place for an argument with which workers died again and again.

    Raises:
        RuntimeError: where there is no worker for so long, and where the scheduler is lost.
        Exception: what `work` raised.
    """
    from distributed import wait

    data = pickle.dumps(work)
    held = client.submit(Held, data, pure=False)  # a task, not data: it is made again where the worker with it dies
    waiting: dict[Any, int] = {}
    tries = [0] * len(arguments)
    todo = list(range(len(arguments)))[::-1]
    seen = time.monotonic()
    try:
        while todo or waiting:
            workers = _workers(client)
            seen = time.monotonic() if workers else seen
            if time.monotonic() - seen > patience:
                raise RuntimeError(f"there has been no Dask worker for {patience:g} s; start some. {KEPT}")
            while todo and len(waiting) < AHEAD * max(1, workers):
                if held.status == "error":  # given up with the blocks that waited for it
                    held = client.submit(Held, data, pure=False)
                index = todo.pop()
                waiting[client.submit(_call, held, arguments[index], pure=False)] = index
                tries[index] += 1
            try:
                done = wait(list(waiting), timeout=LOOK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(future)
                found = _result(future)
                if isinstance(found, WorkersDied) and tries[index] < SUBMISSIONS:
                    todo.append(index)
                else:
                    yield index, found
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Any) -> Any:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        return WorkersDied(f"the workers that computed it died ({error}); do they lack memory?")
    except CancelledError as error:
        raise RuntimeError(f"the Dask scheduler was lost, or a block was cancelled there. {KEPT}") from error


def _workers(client: Any) -> int:
    try:
        return len(client.nthreads())
    except Exception:  # the scheduler is away
        return 0
