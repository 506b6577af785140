"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import DiskFull, StorageError

#: files that a background writer holds in memory: an epoch writes three
_ON_THEIR_WAY = 4
#: no room on the disk, and none in the user's share of it
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def write_bytes(path: Path, *parts: bytes | memoryview, before: Path | None = None) -> None:
    """Replace a file atomically and durably; where that fails, nothing is left of the new one.

    Args:
        before: where the file that is replaced is kept.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming_what_fails(path.parent):
        try:
            with open(temporary, "wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if before is not None and path.exists():
                os.replace(path, before)
            os.replace(temporary, path)
            to_disk(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def to_disk(path: Path) -> None:
    """Put a file's bytes, or the names in a folder, on the disk: a file is there after a power loss once both are."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming_what_fails(folder: Path) -> Iterator[None]:
    """Say which folder cannot be written, where a call of the system fails.

    Raises:
        StorageError: in the place of an OSError, which says what is wrong and not what to do.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(folder, error) from error


def storage_error(folder: Path, error: OSError) -> StorageError:
    """What a system that refuses to write into a folder says, and what to do."""
    if error.errno in _NO_ROOM:
        return DiskFull(full_disk(folder, error.strerror))
    of = f": {error.filename2 or error.filename}" if error.filename else ""
    return StorageError(unwritable(folder, f"{error.strerror or error}{of}"))


def unwritable(folder: Path, why: str) -> str:
    """The message about a folder that cannot be written though there may be room: why, what to do."""
    return (
        f"{folder} cannot be written ({why}): mend that, then go on with the same command and --resume; nothing that "
        "was written is lost"
    )


def full_disk(folder: Path, why: str | None) -> str:
    """The message about a folder without room: its disk, what is free there, what to do."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e6
    return (
        f"{folder} has no room for another file ({why}; {free:,.1f} MB free): make room there, then go on with the "
        "same command and --resume; nothing that was written is lost"
    )


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, of whatever file, says that there is no room left."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _NO_ROOM)


class BackgroundWriter:
    """Replaces files one after the other, in the order asked for, while its owner goes on.

    An error comes out at the next call, and nothing after it is written: a later file may speak of an earlier one.
    As a context, it ends when everything is on the disk.
    """

    def __init__(self) -> None:
        self._failed = False
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
        self.run(write_bytes, path, data)

    def run(self, write: Callable[..., None], *arguments: Any) -> None:
        """Call a function that writes one file, in its turn."""
        while len(self._pending) >= _ON_THEIR_WAY:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._in_turn, write, *arguments))

    def _in_turn(self, write: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            write(*arguments)
        except BaseException:
            self._failed = True
            raise

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
