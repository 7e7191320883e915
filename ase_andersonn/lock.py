"""Locks: files that one process at a time may write."""

import errno
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

PATIENCE = 0.3
"""Seconds for which a lock is asked for: its holder may be about to write its name, or to end."""
HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_open_in_parent: set[int] = set()


class InUseError(RuntimeError):
    """Files that another process works with."""


class Lock:
    """A lock held within its context; contexts of the same object may be nested.

    It is the operating system's (`flock`), on a file that names the holder and is removed at the end. It ends with the
    process that holds it, however that ends: a file that `kill -9` left is taken over. Child processes do not inherit
    it. Where the file system has no locks, a warning says so, and nothing is locked.

    Args:
        path: of the lock's file; its folder is made where there is none.
        what: is locked, for the error's text.
        remedy: what to do instead of waiting, for the same.

    Raises:
        InUseError: on entering, if another process, or another object in this one, holds it; the text names it.
        NotADirectoryError: on entering, where the folder is a file.
        PermissionError: on entering, where nothing may be written, as on a read-only file system, or where the lock is
            another user's.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        self.path, self.what, self.remedy = path, what, remedy
        self._depth, self._handle, self._process = 0, -1, 0
        self._made_folder = False

    def __enter__(self) -> "Lock":
        if not self._depth or self._process != os.getpid():
            self._handle, self._process, self._depth = self._acquire(), os.getpid(), 0
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process == os.getpid():
            self._depth -= 1
            if not self._depth:
                self._release()

    def check(self) -> None:
        """Raise InUseError where another holds the lock."""
        with suppress(PermissionError):  # a state may be looked at where nothing may be written
            if self.path.exists() and not (self._depth and self._process == os.getpid()):
                with self:
                    pass

    def _acquire(self) -> int:
        self._made_folder = not self.path.parent.exists()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(f"{self.path.parent} is a file, and has to be a folder.") from error
        except OSError as error:
            raise self._explained(error) from error
        until = time.monotonic() + PATIENCE
        while True:
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise self._explained(error) from error
            try:
                if self._locked(handle):
                    _open_in_parent.add(handle)
                    return handle
                holder = os.read(handle, 1000).decode(errors="replace")
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
            if time.monotonic() > until:
                raise InUseError(f"{self.what} is in use by {holder or 'another process'}. {self.remedy}")
            time.sleep(0.02)

    def _explained(self, error: OSError) -> OSError:
        """The error of a lock that cannot be written, with whose it is and what to do."""
        if error.errno not in NOT_ALLOWED:
            return error
        text = f"{self.what} cannot be used, since its lock {self.path} cannot be written ({error.strerror})"
        if not self.path.exists():
            return PermissionError(f"{text}. {self.remedy}")
        with suppress(OSError):
            holder = self.path.read_text(errors="replace")
            text += f"; it was made by {holder or 'another process'}"
        with suppress(OSError, KeyError):
            text += f" of the user {self.path.owner()}"
        return PermissionError(f"{text}. Where that process has ended, remove the file. {self.remedy}")

    def _locked(self, handle: int) -> bool:
        """Whether the open file is this process's now, and still the one in the folder."""
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this operating system has no flock")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD_BY_ANOTHER:
                return False
            logger.warning(
                "%s cannot be locked (%s): see to it that no other process uses it at the same time.",
                self.what,
                error.strerror,
            )
        if not self._is_ours(handle):
            return False
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        return True

    def _is_ours(self, handle: int) -> bool:
        """Whether the open file has not been removed meanwhile, as by the holder before."""
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _release(self) -> None:
        with suppress(OSError):  # not even that it cannot be removed is a reason to fail: it is taken over then
            if self._is_ours(self._handle):
                self.path.unlink()
                if self._made_folder:
                    self.path.parent.rmdir()  # fails, as it should, where it holds anything
        _open_in_parent.discard(self._handle)
        os.close(self._handle)


def _leave_to_parent() -> None:
    """In a forked process: a lock lasts as long as any process has its file open."""
    for handle in _open_in_parent:
        os.close(handle)
    _open_in_parent.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
