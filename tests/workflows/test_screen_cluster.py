"""A screening on Dask workers: the same files as in one process, whatever happens to a worker."""

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.calculators.emt import EMT
from screened import contents, counting, metals

from ase_andersonn.workflows.screen import cluster as spreading
from ase_andersonn.workflows.screen import screen
from ase_andersonn.workflows.screen.cluster import PickledCallable, WorkersDied, spread
from ase_andersonn.workflows.screen.journal import NAME

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow
OPTIONS: dict[str, Any] = {"block_atoms": 4, "fmax": 0.05, "properties": ["bulk_modulus"]}


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


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A screening in one process."""
    folder = tmp_path_factory.mktemp("straight") / "out"
    screen([*metals(), ("bad", ValueError("broken"))], EMT(), folder, **OPTIONS)
    return folder


def on_workers(client: Any, folder: Path, **options: Any) -> Any:
    return screen([*metals(), ("bad", ValueError("broken"))], EMT(), folder, client=client, **{**OPTIONS, **options})


def test_workers_give_the_files_of_one_process(client: Any, straight: Path, tmp_path: Path) -> None:
    on_workers(client, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(straight)


def test_one_process_goes_on_where_workers_ended(client: Any, straight: Path, tmp_path: Path) -> None:
    on_workers(client, tmp_path / "out")
    calc = counting(0)
    screen([*metals(), ("bad", ValueError("broken"))], calc, tmp_path / "out", resume=True, **OPTIONS)
    assert calc.count == 0
    assert contents(tmp_path / "out") == contents(straight)


class Slow(EMT):
    """EMT that takes its time, so that a worker is killed at work."""

    def calculate(self, *arguments: Any, **options: Any) -> None:
        time.sleep(0.005)
        super().calculate(*arguments, **options)


Slow.__name__ = "EMT"
Slow.__qualname__ = "Slow"


def test_a_killed_worker_costs_time_only(client: Any, straight: Path, tmp_path: Path) -> None:
    killed = []

    def kill() -> None:
        time.sleep(1.0)
        (pid, *_) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    screen([*metals(), ("bad", ValueError("broken"))], Slow(), tmp_path / "out", client=client, **OPTIONS)
    killer.join()
    assert killed
    assert contents(tmp_path / "out") == contents(straight)


def test_without_workers_it_ends_with_an_error_and_keeps_what_there_is(straight: Path, tmp_path: Path) -> None:
    lines = (straight / NAME).read_bytes().splitlines(keepends=True)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / NAME).write_bytes(b"".join(lines[:3]))
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as alone,
        pytest.raises(RuntimeError, match=r"no Dask worker for 1 s; start some\. All that was computed"),
    ):
        on_workers(alone, folder, patience=1.0, resume=True)
    assert (folder / NAME).read_bytes() == b"".join(lines[:3])
    assert not (folder / "table.csv").exists()
    screen([*metals(), ("bad", ValueError("broken"))], EMT(), folder, resume=True, **OPTIONS)
    assert contents(folder) == contents(straight)


class Given:
    """Stands for a client whose tasks end as `ends` says, one after another."""

    def __init__(self, ends: list[Any]) -> None:
        self.ends, self.submitted = ends, 0

    def nthreads(self) -> dict[str, int]:
        return {"worker": 1}

    def submit(self, function: Any, *arguments: Any, pure: bool) -> Any:
        self.submitted += 1
        return _Done(self, function)


class _Done:
    status = "finished"

    def __init__(self, client: Given, function: Any) -> None:
        self.end = None if function is PickledCallable else client.ends.pop(0)

    def result(self) -> Any:
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def cancel(self) -> None: ...


def test_blocks_with_which_workers_die_are_begun_again_and_given_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    died = [distributed.KilledWorker("task", SimpleNamespace(address="there"), 3) for _ in range(4)]
    monkeypatch.setattr(distributed, "wait", lambda futures, **_: SimpleNamespace(done=set(futures[:1])))
    monkeypatch.setattr(spreading, "BLOCKS_PER_WORKER", 1)
    client = Given([died[0], "first", died[1], died[2], died[3], "third"])
    found = dict(spread(len, ["a", "b", "c"], client, 60.0))
    assert (found[0], found[2]) == ("first", "third")
    assert isinstance(found[1], WorkersDied)
    with pytest.raises(RuntimeError, match="scheduler was lost"):
        list(spread(len, ["a"], Given([distributed.client.FutureCancelledError("key", "reason")]), 60.0))
    with pytest.raises(KeyError):
        list(spread(len, ["a"], Given([KeyError("of the work")]), 60.0))


def test_a_block_that_is_given_up_is_tried_again_on_resuming(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_dies(work: Any, arguments: Any, *_: Any) -> Iterator[tuple[int, Any]]:
        for index, block in enumerate(arguments):
            yield index, WorkersDied("they died") if index == 1 else work(block)

    monkeypatch.setattr("ase_andersonn.workflows.screen.blocks.spread", one_dies)
    found = on_workers("a client", tmp_path / "out")
    assert [row["error"] for row in found.rows if row["status"] == "failed"] == ["they died", "broken"]
    screen([*metals(), ("bad", ValueError("broken"))], EMT(), tmp_path / "out", resume=True, **OPTIONS)
    assert contents(tmp_path / "out") == contents(straight)


def test_what_is_carried_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = pickle.loads
    monkeypatch.setattr(pickle, "loads", lambda data: made.append(1) or original(data))
    held = PickledCallable(pickle.dumps(len))
    assert [held("abc"), held([1]), len(made)] == [3, 1, 1]
