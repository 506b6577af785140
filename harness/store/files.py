"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: files that a background writer holds in memory: an epoch writes three
_ON_THEIR_WAY = 4


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably; where that fails, the disk full, nothing is left of the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class BackgroundWriter:
    """Replaces files one after the other, in the order asked for, while its owner goes on.

    An error comes out at the next call. As a context, it ends when everything is on the disk.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def write(self, path: Path, data: bytes) -> None:
        """Replace a file soon; waits while more than a few files are on their way, each held in memory."""
        while len(self._pending) >= _ON_THEIR_WAY:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(write_bytes, path, data))

    def wait(self) -> None:
        """Return when every file is on the disk."""
        while self._pending:
            self._pending.popleft().result()


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically and durably."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically and durably."""
    write_text(path, json.dumps(value, indent=2) + "\n")
