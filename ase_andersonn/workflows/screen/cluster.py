"""Blocks spread over the workers of a Dask client; each result is given as soon as it is computed.

A block whose worker dies is computed again by another, so that a killed worker costs time only.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

BLOCKS_PER_WORKER = 2
"""Blocks per worker that are submitted at a time."""
MAX_SUBMISSIONS = 3
"""How often a block is submitted; the scheduler gives it up each time after the death of four workers."""
POLL_SECONDS = 0.5
"""Seconds between checks whether there are still workers."""
RESUME_HINT = "All that was computed so far is kept, and resume goes on with it."


class WorkersDied(RuntimeError):
    """The workers that computed a block died repeatedly."""


class PickledCallable:
    """A callable sent to workers as a pickle and unpickled once on each; Dask's own serialization fails for models.

    Args:
        data: of `pickle.dumps`.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, argument: Any) -> Any:
        if self._work is None:
            self._work = pickle.loads(self.data)
        return self._work(argument)

    def __reduce__(self) -> Any:
        return PickledCallable, (self.data,)


def _call(function: PickledCallable, argument: Any) -> Any:
    return function(argument)


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
        index, and what came out; `WorkersDied` in its place for an argument whose workers died repeatedly.

    Raises:
        RuntimeError: where there is no worker for so long, and where the scheduler is lost.
        Exception: what `work` raised.
    """
    from distributed import wait

    wait_for: Callable[..., Any] = wait
    data = pickle.dumps(work)
    # A task rather than data: it is computed again when the worker that holds it dies.
    function = client.submit(PickledCallable, data, pure=False)
    waiting: dict[Any, int] = {}
    tries = [0] * len(arguments)
    todo = list(range(len(arguments)))[::-1]
    seen = time.monotonic()
    try:
        while todo or waiting:
            workers = _workers(client)
            seen = time.monotonic() if workers else seen
            if time.monotonic() - seen > patience:
                raise RuntimeError(f"there has been no Dask worker for {patience:g} s; start some. {RESUME_HINT}")
            while todo and len(waiting) < BLOCKS_PER_WORKER * max(1, workers):
                if function.status == "error":  # given up with the blocks that waited for it
                    function = client.submit(PickledCallable, data, pure=False)
                index = todo.pop()
                waiting[client.submit(_call, function, arguments[index], pure=False)] = index
                tries[index] += 1
            try:
                done = wait_for(list(waiting), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(future)
                found = _result(future)
                if isinstance(found, WorkersDied) and tries[index] < MAX_SUBMISSIONS:
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
        raise RuntimeError(f"the Dask scheduler was lost, or a block was cancelled there. {RESUME_HINT}") from error


def _workers(client: Any) -> int:
    try:
        return len(client.nthreads())
    except Exception:  # the scheduler is away
        return 0
