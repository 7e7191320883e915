"""The journal of a screening: what was computed, a line each, safe from `kill -9` and from flipped bits.

A line is the SHA-256 of the rest, a blank, and JSON; the first one holds the settings. Lines are appended and synced,
so that an end at any moment loses the line at hand at most. What does not fit its checksum is left out on reading, and
computed anew.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ase_andersonn.lock import Lock

logger = logging.getLogger(__name__)

FORMAT = "ase-andersonn-screening-1"
NAME = "journal.jsonl"


class Journal:
    """Results by keys, kept in a folder; open within its context.

    Args:
        folder: is made where there is none.
        settings: on which the results depend, as JSON holds them; those of the journal have to be the same.
        resume: whether a journal that is there is gone on with.

    Raises:
        FileExistsError: on entering, where there is a journal and `resume` is False.
        ValueError: on entering, for a journal of other settings, or a file that is none.
        InUseError: on entering, where another process works in the folder.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.folder, self.path, self.resume = folder, folder / NAME, resume
        self.settings = json.loads(json.dumps(settings))
        self.found: dict[str, Any] = {}
        self._lock = Lock(folder / ".lock", f"the folder {folder}", "Wait until that has ended, or name another one.")

    def __enter__(self) -> "Journal":
        self._lock.__enter__()
        try:
            self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.__exit__(kind, error, trace)

    def write(self, key: str, value: Any) -> Any:
        """Keep a result; returned as it will be read."""
        text = json.dumps({"key": key, "value": value}, separators=(",", ":"))
        self._append(text)
        self.found[key] = json.loads(text)["value"]
        return self.found[key]

    def _open(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        end = data.rfind(b"\n") + 1  # what follows was being written when the process ended
        lines = data[:end].split(b"\n")[:-1]
        if lines and not self.resume:
            raise FileExistsError(f"{self.folder} holds a screening; go on with resume, or name another folder.")
        if lines:
            self._check_settings(_content(lines[0]))
        records = [_content(line) for line in lines[1:]]
        self.found = {record["key"]: record["value"] for record in records if record is not None}
        if damaged := records.count(None):
            logger.warning("%d lines of %s are damaged; what they held is computed anew.", damaged, self.path)
        self._file = open(self.path, "ab")  # noqa: SIM115 (closed on leaving)
        if end < len(data):
            self._file.truncate(end)
        if not lines:
            self._append(json.dumps({"format": FORMAT, "settings": self.settings}, separators=(",", ":")))
            _sync_folder(self.folder)

    def _check_settings(self, header: Any) -> None:
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"{self.path} is damaged in its first line, or no journal; name another folder.")
        before = header["settings"]
        changed = [
            f"{name} was {before.get(name)!r} and is {self.settings.get(name)!r}"
            for name in dict.fromkeys([*before, *self.settings])
            if before.get(name) != self.settings.get(name)
        ]
        if changed:
            raise ValueError(
                f"{self.folder} holds a screening with other settings ({'; '.join(changed)}); give the same ones, or "
                "name another folder."
            )

    def _append(self, text: str) -> None:
        data = text.encode()
        self._file.write(hashlib.sha256(data).hexdigest().encode() + b" " + data + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _content(line: bytes) -> Any:
    """What a line holds; None where it does not fit its checksum."""
    digest, _, data = line.partition(b" ")
    return json.loads(data) if hashlib.sha256(data).hexdigest().encode() == digest else None


def _sync_folder(folder: Path) -> None:
    """See to it that the folder's entry of a new file is on the disk too, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
