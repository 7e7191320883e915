"""Lock files for exclusive access of one process."""

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

ACQUIRE_SECONDS = 0.3
"""Seconds of attempts to acquire a lock, as its holder may be about to write its name, or to exit."""
HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_open_in_parent: set[int] = set()


class InUseError(RuntimeError):
    """Files are in use by another process."""


class Lock:
    """Lock held within a context; contexts of the same object may be nested.

    It uses `flock` on a file that names the holder and is removed at the end. It is released when the process that
    holds it exits in any way: a file left by `kill -9` is taken over. Child processes do not inherit it. On a file
    system without locks there is a warning, and nothing is locked.

    Args:
        path: the lock file; its folder is created if necessary.
        what: description of the locked object, for the error message.
        remedy: advice for the error message.

    Raises:
        InUseError: on entering, if another process, or another object in this one, holds the lock; the message names
            it.
        NotADirectoryError: on entering, if the folder is a file.
        PermissionError: on entering, if the lock file cannot be written, as on a read-only file system or for a lock of
            another user.
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
        """Raise InUseError if another process or object holds the lock."""
        with suppress(PermissionError):  # a state may be read without permission to write
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
        until = time.monotonic() + ACQUIRE_SECONDS
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
        """Error for a lock that cannot be written, with its owner and a remedy."""
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
        """Acquire the open file; whether this succeeded and the file is still the one in the folder."""
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "this operating system has no flock")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD_BY_ANOTHER:
                return False
            logger.warning(
                "%s cannot be locked (%s): make sure that no other process uses it at the same time.",
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
        """Whether the open file has not been removed meanwhile, for instance by the previous holder."""
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _release(self) -> None:
        with suppress(OSError):  # a file that cannot be removed is not an error, as it will be taken over
            if self._is_ours(self._handle):
                self.path.unlink()
                if self._made_folder:
                    self.path.parent.rmdir()  # fails, as intended, unless it is empty
        _open_in_parent.discard(self._handle)
        os.close(self._handle)


def _leave_to_parent() -> None:
    """Close the locks in a forked process, as a lock lasts while any process has its file open."""
    for handle in _open_in_parent:
        os.close(handle)
    _open_in_parent.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
