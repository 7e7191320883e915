"""Tiles, and Monte Carlo replicas, on many processes or machines, by Dask distributed (the extra `distributed`).

This process gathers the atoms of some batches of tiles and sends them; a worker solves them and sends energies and
forces back. They are added up in the order of the tiles, so that results do not depend on which worker was first. A
worker that dies loses nothing but time: what it had is computed anew by another one, however often that happens to
others in turn. Where all are gone and none comes back, this process does itself what is left. For SLURM and its like,
start workers with dask-jobqueue and hand its client over.
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
"""Place of the first tile, the cluster, and how many tiles the next one would have."""
TASK_ROWS = 16384
"""Rows solved in a task of a large structure: to send a task takes as long as to solve for some hundreds of them."""
AHEAD = 3
"""Tasks for each worker that are on their way at a time."""
KEPT_BYTES = str(1 << 30)
WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # Dask has freed memory given back at once, and a third of the time then goes into asking for it again.
    **dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), KEPT_BYTES),
}
RETRIES = 5
"""How often a task may be begun again."""
SUBMISSIONS = 10
"""How often a task is handed to the scheduler, which gives up one that four workers died with, or waiting for it."""

GONE_SECONDS = 60.0
"""How long a scheduler that had workers may be without any before this process goes on by itself."""
LOOK_SECONDS = 1.0
"""How long to wait for a task between two looks at the workers."""


def connect(client: Any) -> Any:
    """A Dask client: the one given, of a scheduler's address, or of one process a core of this machine for "local".

    Raises:
        ImportError: where Dask distributed is not installed.
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
        return Client(client)  # type: ignore[no-untyped-call]
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}):
        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")  # type: ignore[no-untyped-call]
    return Client(cluster)  # type: ignore[no-untyped-call]


class Workers:
    """Those of a scheduler; before the first of them is there, as in the queue of a cluster, they are waited for.

    Args:
        client: a Dask client.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._seen = time.monotonic() if client.nthreads() else None

    def finish(self, future: Any) -> bool:
        """Whether a task was done, or failed; False where all workers have been gone for `GONE_SECONDS`."""
        from distributed import wait

        while True:
            try:
                wait(future, timeout=LOOK_SECONDS)  # type: ignore[no-untyped-call]
            except TimeoutError:
                there = bool(self.client.nthreads())
            else:
                there = True
            if there:
                self._seen = time.monotonic()
            if future.done():
                return True
            if self._seen is not None and time.monotonic() - self._seen > GONE_SECONDS:
                return False


class Task:
    """A task on the scheduler, submitted anew where that gives it up since too many workers died.

    Args:
        submit: gives its future.
        here: what it does, for this process where there are no workers any more.
        workers: those that may do it; None to wait for them whatever happens.
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
        """What the task gives, or raises.

        Raises:
            RuntimeError: where the scheduler was lost, and where workers died `SUBMISSIONS` times over.
        """
        from distributed import KilledWorker

        for left in reversed(range(SUBMISSIONS)):
            try:
                if self._here is not None and self._workers is not None and not self._workers.finish(self.future):
                    logger.warning("the Dask workers are gone and none came back: this process does what is left")
                    self.future.cancel()
                    return self._here()
                return self.future.result()
            except CancelledError as error:
                raise RuntimeError("the Dask scheduler was lost, or a task was cancelled there.") from error
            except KilledWorker as error:
                if not left:
                    raise RuntimeError(
                        f"a task was begun {SUBMISSIONS} times over, and its workers died each time ({error}). If they "
                        "lack memory, lower max_memory or start fewer on a machine; their logs say what ended them."
                    ) from error
            self.future = self._submit()
        raise AssertionError


def run_each(function: Callable[..., T], arguments: Iterable[Any], client: Any = "local") -> Iterator[T]:
    """`function(argument)` of every argument, in their order; a few tasks for each worker are on their way at a time.

    Args:
        function: picklable, and without effects: a task whose worker died is begun again.
        arguments: picklable, each as large as a message should be.
        client: see `connect`.

    Raises:
        Exception: what the function raised.
    """
    connection, waiting = connect(client), deque[Task]()
    workers = Workers(connection)
    try:
        for argument in arguments:
            submit = partial(connection.submit, function, argument, retries=RETRIES, pure=False)
            waiting.append(Task(submit, partial(function, argument), workers))
            if len(waiting) >= AHEAD * max(1, len(connection.nthreads())):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for task in waiting:
            task.future.cancel()
        if connection is not client:
            _close(connection, client)


def run_replicas(make: Callable[[int], Any], states: list[Any], steps: int, client: Any = "local") -> list[Any]:
    """Simulations advanced by some steps, each on a worker; their new states, in order.

    A worker makes simulation k with `make(k)`, sets its state with `set_state(*states[k])` unless that is None, calls
    `run(steps)`, and sends back what `get_state()` gives: `mc.MetropolisMC` has these methods, and with them a
    simulation goes on bit for bit. One whose worker dies begins its steps again.

    Args:
        make: picklable; gives simulation k with its atoms and calculator.
        states: of each simulation, or None for one that begins.
        steps: of each.
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
        """See `TileBatchSolver.solve`; `memory` is for one worker, or for all where they are on this machine."""
        memory = memory / self._workers() if self._on_one_machine else memory
        begun, worked = time.perf_counter(), self._worked
        submit = partial(self.client.submit, retries=RETRIES, pure=False)
        # A task on the scheduler, not data on a worker: it is made again where the worker that held it dies.
        models = [submit(_PickledModel, self.model)]

        def begin(jobs: list[tuple[Job, Cluster, Any]]) -> Any:
            if models[0].status == "error":  # given up with the tasks that waited for it
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
                if len(waiting) >= AHEAD * self._workers():
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
    """Clusters in their order, in groups of so many rows at least; the last group may have fewer."""
    group, held = list[ClusterTask](), 0
    for part in clusters:
        group.append(part)
        held += part[1].n_solved
        if held >= rows:
            yield group
            group, held = [], 0
    if group:
        yield group


class _PickledModel:
    """A model between workers, as a pickle: Dask takes modules apart in a way of its own, which fails for these."""

    def __init__(self, model: EnergyModel) -> None:
        self.model = model


def _solved(carried: _PickledModel, jobs: Sequence[tuple[Job, Cluster, Any]]) -> list[Solved]:
    """On a worker: some batches, one after another."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # there is one worker for each core
        return [job.run(carried.model, cluster, numbers) for job, cluster, numbers in jobs]
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
