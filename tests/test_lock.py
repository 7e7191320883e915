"""Locks: one process at a time, named to the others; ended by whatever ends the process."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ase_andersonn.lock import InUseError, Lock


def lock(path: Path) -> Lock:
    return Lock(path / ".lock", f"the folder {path}", "Name another folder.")


HOLDER = """
import sys, time
from pathlib import Path
from ase_andersonn.lock import Lock
with Lock(Path(sys.argv[1]) / ".lock", "the folder", "Name another."):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_process_that_holds_a_lock_is_named(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as process:
        expected = rf"the folder {tmp_path} is in use by process {process.pid} on .+ since 20.+\. Name another folder\."
        with pytest.raises(InUseError, match=expected), lock(tmp_path):
            pass
        with pytest.raises(InUseError, match=f"process {process.pid} "):
            lock(tmp_path).check()
        process.communicate("")
    with lock(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert f"process {process.pid} " in (tmp_path / ".lock").read_text()
        lock(tmp_path).check()
        with lock(tmp_path):
            assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())


def test_what_a_child_process_does_is_not_the_holders(tmp_path: Path) -> None:
    """A fork inherits open files, and with them the lock, if it did not close them."""
    held = lock(tmp_path)
    with held:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                held.__exit__(None, None, None)  # as when the child leaves the context: the file stays
                with held:
                    os.write(writer, b"held by both")
            except InUseError:
                os.write(writer, b"refused")
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reader, 100) == b"refused"
        assert (tmp_path / ".lock").exists()
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with lock(tmp_path):  # although the child lives
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_nested_contexts_and_others_in_the_same_process(tmp_path: Path) -> None:
    first, second = lock(tmp_path), lock(tmp_path)
    with first:
        with first:
            first.check()
        with pytest.raises(InUseError, match=f"process {os.getpid()} "), second:
            pass
    with second:
        pass


def test_an_error_within_ends_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock(tmp_path / "new" / "folder"):
        raise KeyboardInterrupt
    with lock(tmp_path / "new" / "folder"):
        pass


def test_one_of_many_at_a_time(tmp_path: Path) -> None:
    """Removing the file and making it anew leaves no gap."""
    inside, most, turns, refused = [0], [0], [0], [0]

    def work() -> None:
        for _ in range(150):
            try:
                with lock(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    turns[0] += 1
                    inside[0] -= 1
            except InUseError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert turns[0] + refused[0] == 600
    assert turns[0] > 100


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with lock(tmp_path):
        pass
    assert f"the folder {tmp_path} cannot be locked ({os.strerror(number)}): make sure" in caplog.text


def test_a_system_without_flock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ase_andersonn.lock.fcntl", None)
    with lock(tmp_path):
        pass
    assert "cannot be locked" in caplog.text


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(NotADirectoryError, match="run is a file, and has to be a folder"), lock(tmp_path / "run"):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_where_nothing_may_be_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only file system, a folder without permission: what, where, why, and what to do, without a number."""

    def refused(path: object, *_: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError) as caught, lock(tmp_path):
        pass
    reason = f"the folder {tmp_path} cannot be used, since its lock {tmp_path}/.lock cannot be written"
    assert str(caught.value) == f"{reason} ({os.strerror(number)}). Name another folder."
    (tmp_path / ".lock").write_text("process 7 on node1 since Monday")
    with pytest.raises(PermissionError) as caught, lock(tmp_path):
        pass
    rest = f"made by process 7 on node1 since Monday of the user {(tmp_path / '.lock').owner()}. Where that process has"
    assert rest in str(caught.value)
    lock(tmp_path).check()  # a state may be looked at


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(PermissionError, match=r"Read-only file system.*Name another folder"), lock(tmp_path / "new"):
        pass
