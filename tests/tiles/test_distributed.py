"""Tiles and replicas on several processes: the same numbers as in one, whatever happens to a worker."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiled_models import CASES, results, tiled

from ase_andersonn.tiles import batches as stream
from ase_andersonn.tiles import distributed as remote

distributed = pytest.importorskip("distributed")

from ase_andersonn.tiles.distributed import (  # noqa: E402 (needs the extra)
    SUBMISSIONS,
    Task,
    Workers,
    connect,
    grouped,
    run_each,
    run_replicas,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes that find the tests' modules."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    paths = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        ) as cluster,
        distributed.Client(cluster) as connection,
    ):
        yield connection


def kill_a_worker(client: Any) -> None:
    pids = client.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)


def test_workers_give_the_numbers_of_one_process(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = CASES["skewed"]()
    monkeypatch.setitem(stream.MAX_SOLVED_ATOMS, "cpu", 60)
    expected, given = results(tiled(3.0), atoms), results(tiled(3.0, client=client), atoms)
    for name, value in expected.items():
        assert np.array_equal(given[name], value), name
    address = client.scheduler.address
    assert results(tiled(3.0, client=address), atoms, forces=False)["energy"] == expected["energy"]


def test_tasks_hold_clusters_in_their_order() -> None:
    parts: list[Any] = [(k, SimpleNamespace(n_solved=rows), 1) for k, rows in enumerate((5, 5, 20, 1, 2, 7, 3))]
    groups = [[place for place, *_ in group] for group in grouped(parts, 10)]
    assert groups == [[0, 1], [2], [3, 4, 5], [6]]


def test_a_worker_that_dies_loses_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = CASES["crystal"]() * (2, 2, 2)
    monkeypatch.setitem(stream.MAX_SOLVED_ATOMS, "cpu", 20)
    expected = results(tiled(3.0), atoms)["energy"]
    evaluator = tiled(3.0, client=client)
    killer = threading.Timer(1.0, kill_a_worker, [client])
    killer.start()
    given = results(evaluator, atoms)["energy"]
    assert not killer.is_alive()
    assert given == expected
    assert evaluator.diagnostics["batches"] > 10


class Given:
    """Stands for a future: one that fails as often as it is said, or for ever."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures

    def result(self) -> str:
        if self.failures:
            raise self.failures.pop()
        return "done"


def test_a_task_that_is_given_up_is_submitted_anew() -> None:
    def died() -> Exception:
        return distributed.KilledWorker("task", SimpleNamespace(address="tcp://one"), 3)  # type: ignore[no-any-return]

    for times in (0, 1, SUBMISSIONS - 1):
        failures, submitted = [died() for _ in range(times)], []
        assert Task(lambda f=failures, s=submitted: s.append(1) or Given(f)).result() == "done"
        assert len(submitted) == times + 1
    forever = [died() for _ in range(SUBMISSIONS)]
    with pytest.raises(RuntimeError, match=f"submitted {SUBMISSIONS} times, and its workers died each time"):
        Task(lambda: Given(forever)).result()
    with pytest.raises(ZeroDivisionError):
        Task(lambda: Given([ZeroDivisionError()])).result()
    with pytest.raises(RuntimeError, match="connection to the Dask scheduler was lost"):
        Task(lambda: Given([CancelledError()])).result()


def slowly(x: int) -> int:
    time.sleep(0.1)
    return 2 * x


def test_without_workers_this_process_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where all workers are gone for good, the same numbers come, and nobody waits for ever."""
    monkeypatch.setattr(remote, "GONE_SECONDS", 0.5)
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.1)
    atoms = CASES["crystal"]()
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as connection,
    ):
        answers = run_each(slowly, range(20), connection)
        assert next(answers) == 0
        cluster.scale(0)
        assert list(answers) == list(range(2, 40, 2))
        assert "none came back" in caplog.text
        monkeypatch.setattr(remote, "Workers", lambda client: Having(client))
        expected = results(tiled(3.0), atoms)
        for name, value in results(tiled(3.0, client=connection), atoms).items():
            assert np.array_equal(value, expected[name]), name


def test_a_result_that_its_worker_takes_along() -> None:
    """Finished on a worker that is lost before it sends the result: computed here, not waited for."""

    class Kept(Given):
        status = "finished"

        def result(self, timeout: float | None = None) -> Any:
            assert timeout is not None, "waits for ever"
            raise TimeoutError

        def cancel(self) -> None:
            self.status = "cancelled"

    class Gone:
        def __init__(self) -> None:
            self.answers = [True, True, False]

        def finish(self, _: Any) -> bool:
            return self.answers.pop(0)

    task = Task(lambda: Kept([]), lambda: "here", Gone())  # type: ignore[arg-type]
    assert task.result() == "here"
    assert task.future.status == "cancelled"


class Having(Workers):
    """Workers that were there before."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._last_seen = time.monotonic()


def test_workers_that_are_still_to_come_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GONE_SECONDS", 0.1)
    monkeypatch.setattr(remote, "LOOK_SECONDS", 0.1)
    with (
        distributed.LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as connection,
    ):
        begun = threading.Timer(1.0, cluster.scale, [1])
        begun.start()
        assert list(run_each(on_a_worker, [3], connection)) == [3]


def on_a_worker(x: int) -> int:
    distributed.get_worker()  # raises where there is none
    return x


def test_what_a_worker_raises_is_raised_here(client: Any) -> None:
    atoms = CASES["crystal"]()
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises(ValueError, match="apart"):
        results(tiled(3.0, client=client), atoms)
    assert results(tiled(3.0, client=client), CASES["crystal"]())["energy"] < 0


class Walk:
    """A simulation with the methods of MetropolisMC that matter here."""

    def __init__(self, k: int) -> None:
        self.k, self.place, self.random = k, 0.0, np.random.default_rng(k)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.place += self.random.normal()
            time.sleep(0.01)

    def get_state(self) -> tuple[float, Any]:
        return self.place, self.random.bit_generator.state

    def set_state(self, place: float, state: Any) -> None:
        self.place, self.random.bit_generator.state = place, state


def test_replicas_go_on_bit_for_bit(client: Any) -> None:
    states: list[Any] = [None] * 4
    for turn in range(3):
        if turn == 1:
            threading.Timer(0.2, kill_a_worker, [client]).start()
        states = run_replicas(Walk, states, 50, client)
    for k, (place, _) in enumerate(states):
        alone = Walk(k)
        alone.run(150)
        assert place == alone.place


def test_all_workers_killed_again_and_again(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often, and also while they start."""
    monkeypatch.setattr(remote, "GONE_SECONDS", 5.0)
    stop, killed = threading.Event(), set[int]()

    def kill() -> None:
        while not stop.wait(0.7):
            for nanny in client.cluster.workers.values():
                if nanny.pid:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, signal.SIGKILL)
                        killed.add(nanny.pid)

    threading.Thread(target=kill).start()
    threading.Timer(6.0, stop.set).start()
    assert list(run_each(slowly, range(60), client)) == list(range(0, 120, 2))
    stop.set()
    assert len(killed) > 4


def double(x: int) -> int:
    return 2 * x


def test_each_argument_in_order(client: Any) -> None:
    assert list(run_each(double, range(20), client)) == list(range(0, 40, 2))
    assert connect(client) is client


def test_a_cluster_of_this_machine() -> None:
    with_cluster = list(run_each(abs, [-1, 2, -3], "local"))
    assert with_cluster == [1, 2, 3]
