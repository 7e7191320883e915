"""Tiles and Monte Carlo replicas on many processes or machines with Dask distributed (extra `distributed`).

The main process gathers the atoms of some batches of tiles and submits them; workers solve them and return energies and
forces, which are summed in the order of the tiles, so that results do not depend on the order of completion. Tasks of a
lost worker are computed again by another one. If all workers are lost and none comes back, the main process computes
the remaining tasks. On SLURM and similar systems, start workers with dask-jobqueue and pass its client.
"""

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, TypeVar

import torch

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Settings

from .batches import Batch, Job, TileBatchSolver
from .cluster import Cluster
from .grid import CellList, Floats, Ints, TileGrid3D
from .tile_solver import Solved

logger = logging.getLogger(__name__)
T = TypeVar("T")
ClusterTask = tuple[int, Cluster, int]
"""Index of the first tile, the cluster, and the number of tiles of the next cluster."""
TASK_ROWS = 16384
"""Solved rows in a task of a large structure; sending a task takes as long as solving some hundreds of rows."""
TASKS_PER_WORKER = 3
"""Number of tasks submitted at a time, per worker."""
KEPT_BYTES = str(1 << 30)
WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # By default Dask returns freed memory to the system at once; allocating it again takes a third of the time.
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), KEPT_BYTES),
}
RETRIES = 5
"""Number of times Dask repeats a failed task."""
SUBMISSIONS = 10
"""Number of times a task is submitted. The scheduler gives up a task after four workers died while running it."""

GONE_SECONDS = 60.0
"""Time without any worker after which the main process computes the remaining tasks."""
LOOK_SECONDS = 1.0
"""Interval between checks of the workers while waiting for a task."""


def connect(client: Any) -> Any:
    """Dask client: the given one, one for a scheduler's address, or for "local" one with a process per core.

    Raises:
        ImportError: where Dask distributed is not installed.
        ValueError: where no scheduler can be reached at the address.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(
            "distributed evaluations need Dask: install the extra, pip install 'ase-andersonn[distributed]'."
        ) from error
    if isinstance(client, Client):
        return client
    if client != "local":
        try:
            return Client(client)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:  # no such scheduler, and what is no address
            raise ValueError(
                f"no Dask scheduler can be reached at {client!r} ({error}); give 'local', or the address of one that "
                "runs, such as tcp://localhost:8786."
            ) from error
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")  # type: ignore[no-untyped-call]
    return Client(cluster)  # type: ignore[no-untyped-call]


class Workers:
    """Workers of a scheduler. Until the first one has started (jobs may be queued), they are waited for.

    Args:
        client: a Dask client.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._last_seen = time.monotonic() if client.nthreads() else None

    def finish(self, future: Any) -> bool:
        """Wait for a task to finish or fail; False if there was no worker for `GONE_SECONDS`."""
        from distributed import wait

        while True:
            try:
                wait(future, timeout=LOOK_SECONDS)  # type: ignore[no-untyped-call]
            except TimeoutError:
                there = bool(self.client.nthreads())
            else:
                there = True
            if there:
                self._last_seen = time.monotonic()
            if future.done():
                return True
            if self._last_seen is not None and time.monotonic() - self._last_seen > GONE_SECONDS:
                return False


class Task:
    """Task on the scheduler, resubmitted if the scheduler gives it up because workers died.

    Args:
        submit: submits the task and returns its future.
        here: the same computation, for the main process if all workers are lost.
        workers: workers of the scheduler; None to wait for them without limit.
    """

    def __init__(
        self,
        submit: Callable[[], Any],
        here: Callable[[], Any] | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._submit, self._here, self._workers = submit, here, workers
        self.future = submit()

    def result(self) -> Any:
        """Result of the task; exceptions of the task are raised.

        Raises:
            RuntimeError: if the scheduler is lost, or workers died in each of `SUBMISSIONS` attempts.
        """
        from distributed import KilledWorker

        for left in reversed(range(SUBMISSIONS)):
            try:
                return self._gathered()
            except CancelledError as error:
                raise RuntimeError(
                    "the connection to the Dask scheduler was lost, or a task was cancelled there."
                ) from error
            except KilledWorker as error:
                if not left:
                    raise RuntimeError(
                        f"a task was submitted {SUBMISSIONS} times, and its workers died each time ({error}). If they "
                        "lack memory, lower max_memory or start fewer per machine; see their logs for the cause."
                    ) from error
            self.future = self._submit()
        raise AssertionError

    def _gathered(self) -> Any:
        """The result, from a worker or, where all are lost, computed here."""
        if self._here is None or self._workers is None:
            return self.future.result()
        while self._workers.finish(self.future):
            try:
                return self.future.result(timeout=GONE_SECONDS)
            except TimeoutError:  # the worker was lost between finishing and sending, unless the task itself raised it
                if self.future.status == "error":
                    raise
        logger.warning("all Dask workers are lost and none came back: the main process computes the remaining tasks")
        self.future.cancel()
        return self._here()


def run_each(function: Callable[..., T], arguments: Iterable[Any], client: Any = "local") -> Iterator[T]:
    """Results `function(argument)` of all arguments in order, with a few tasks per worker submitted at a time.

    Args:
        function: picklable and without side effects: it is run again if a worker dies.
        arguments: picklable, one per task.
        client: see `connect`.

    Raises:
        Exception: exceptions of the function.
    """
    connection, waiting = connect(client), deque[Task]()
    workers = Workers(connection)
    try:
        for argument in arguments:
            submit = partial(connection.submit, function, argument, retries=RETRIES, pure=False)
            waiting.append(Task(submit, partial(function, argument), workers))
            if len(waiting) >= TASKS_PER_WORKER * max(1, len(connection.nthreads())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for task in waiting:
            task.future.cancel()
        if connection is not client:
            _close(connection, client)


def run_replicas(make: Callable[[int], Any], states: list[Any], steps: int, client: Any = "local") -> list[Any]:
    """Advance simulations by some steps, each on a worker; returns their new states in order.

    A worker creates simulation k with `make(k)`, sets its state with `set_state(*states[k])` unless it is None, calls
    `run(steps)` and returns `get_state()`. `mc.MetropolisMC` has these methods, and continues bit for bit. If a worker
    dies, its steps are repeated.

    Args:
        make: picklable; creates simulation k with its atoms and calculator.
        states: state of each simulation; None to start it.
        steps: number of steps of each simulation.
        client: see `connect`.
    """
    return list(run_each(_advance, [(make, k, state, steps) for k, state in enumerate(states)], client))


class RemoteStream(TileBatchSolver):
    """Solves tiles on the workers of a Dask client.

    Args:
        model: an equilibrium model.
        settings: see `AndersoNN`; its device is the workers' device.
        client: see `connect`.
    """

    def __init__(self, model: EnergyModel, settings: Settings, client: Any) -> None:
        super().__init__(model, settings)
        self.client = connect(client)
        self._on_one_machine = client == "local"
        if self.client is not client:
            weakref.finalize(self, _close, self.client, client)

    def solve(
        self,
        grid: TileGrid3D,
        bins: CellList,
        structure: tuple[Floats, Any],
        tiles: Ints,
        context: float,
        *,
        memory: float,
        forces: bool = False,
        size: int = 0,
    ) -> Iterator[Batch]:
        """See `TileBatchSolver.solve`; `memory` is per worker, or for all workers with `client="local"`."""
        memory = memory / self._workers() if self._on_one_machine else memory
        begun, worked = time.perf_counter(), self._worked
        submit = partial(self.client.submit, retries=RETRIES, pure=False)
        # A task rather than scattered data: the scheduler runs it again if the worker that has the model dies.
        models = [submit(_PickledModel, self.model)]

        def begin(jobs: list[tuple[Job, Cluster, Any]]) -> Any:
            if models[0].status == "error":  # given up together with the tasks that depend on it
                models[0] = submit(_PickledModel, self.model)
            return submit(_solved, models[0], jobs)

        waiting, workers = deque[tuple[list[ClusterTask], Task]](), Workers(self.client)
        clusters = self._clusters(grid, bins, structure[0], tiles, context, memory, forces, size)
        rows = min(TASK_ROWS, len(structure[0]) // (2 * self._workers()))
        try:
            for parts in grouped(clusters, rows):
                self._worked = worked + time.perf_counter() - begun
                jobs = [(self._job(c, forces, memory), c, structure[1][c.atom]) for _, c, _ in parts]
                waiting.append(
                    (parts, Task(partial(begin, jobs), partial(_solved, _PickledModel(self.model), jobs), workers))
                )
                if len(waiting) >= TASKS_PER_WORKER * self._workers():
                    yield from self._finished(*waiting.popleft())
            while waiting:
                yield from self._finished(*waiting.popleft())
        finally:
            for _, task in waiting:
                task.future.cancel()

    def _workers(self) -> int:
        return max(1, len(self.client.nthreads()))

    def _finished(self, parts: list[ClusterTask], task: "Task") -> Iterator[Batch]:
        begun = time.perf_counter()
        found: list[Solved] = task.result()
        self.statistics.seconds["solve"] += time.perf_counter() - begun
        for (first, cluster, fitting), solved in zip(parts, found, strict=True):
            self._take(cluster, solved)
            yield Batch(first, first + cluster.n_tiles, cluster, solved, fitting)


def grouped(clusters: Iterable[ClusterTask], rows: int) -> Iterator[list[ClusterTask]]:
    """Clusters in order, in groups of at least `rows` rows; the last group may have fewer."""
    group, n_rows = list[ClusterTask](), 0
    for part in clusters:
        group.append(part)
        n_rows += part[1].n_solved
        if n_rows >= rows:
            yield group
            group, n_rows = [], 0
    if group:
        yield group


class _PickledModel:
    """Wrapper with which Dask pickles a model as one object; its own serialization of modules fails here."""

    def __init__(self, model: EnergyModel) -> None:
        self.model = model


def _solved(wrapped: _PickledModel, jobs: Sequence[tuple[Job, Cluster, Any]]) -> list[Solved]:
    """Solve some batches in order; runs on a worker."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # one worker per core
        return [job.run(wrapped.model, cluster, numbers) for job, cluster, numbers in jobs]
    finally:
        torch.set_num_threads(threads)


def _advance(task: tuple[Callable[[int], Any], int, Any, int]) -> Any:
    make, k, state, steps = task
    simulation = make(k)
    if state is not None:
        simulation.set_state(*state)
    simulation.run(steps)
    return simulation.get_state()


def _close(connection: Any, client: Any) -> None:
    cluster = connection.cluster
    connection.close()
    if client == "local" and cluster is not None:
        cluster.close()
