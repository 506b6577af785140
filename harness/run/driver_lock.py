"""One driver for one study: two processes that wrote the same journals would tear and double their rows.

The lock is a `flock`, which the operating system gives back however its holder ends: the file that a killed driver
leaves locks nobody out. A network file system is as good as its locks, see `harness.store.cache_folders`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from harness.errors import StudyError
from harness.store import StudyFolder
from harness.store.cache_folders import NO_LOCKS, is_at
from harness.store.files import naming_what_fails

LOCK = "driver.lock"
#: seconds, many times what `is_driven` takes
_LOOK = 0.05


@contextmanager
def driver_lock(folder: StudyFolder) -> Iterator[None]:
    """Be the only driver of a study, whose folder is made where it is missing, to the end of this context or process.

    Raises:
        StudyError: another process runs the study, or its folder cannot be written.
        StorageError: the lock cannot be written, e.g. for lack of room.
    """
    path = folder.path / LOCK
    lock = _take(folder, path)
    try:
        holder = f"pid {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M}\n"
        with naming_what_fails(folder.path):
            os.ftruncate(lock, 0)
            os.write(lock, holder.encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def check_not_driven(folder: StudyFolder) -> None:
    """Look whether another process runs a study, without making anything: before minutes of preparation.

    Raises:
        StudyError: one does, or the study's folder cannot be written.
    """
    there = next(path for path in (folder.path, *folder.path.absolute().parents) if os.path.isdir(path))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _unwritable(folder, PermissionError(errno.EACCES, f"{there} is read-only or another user's"))
    try:
        lock = os.open(folder.path / LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        _lock(lock, folder)
    finally:
        os.close(lock)


def is_driven(folder: StudyFolder) -> bool:
    """Whether a process drives a study; a driver that starts meanwhile is not kept out."""
    try:
        lock = os.open(folder.path / LOCK, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        # shared: any number may look; given back at once
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def is_new(folder: StudyFolder) -> bool:
    """Whether nothing is there, or what a driver that did not come as far as study.yaml leaves."""
    if not folder.path.is_dir():
        return not folder.path.exists()
    before, half_written = (LOCK, folder.provenance.name), (f".{folder.provenance.name}.", f".{folder.settings.name}.")
    names = [path.name for path in folder.path.iterdir()]
    return all(name in before or name.startswith(half_written) for name in names)


def _take(folder: StudyFolder, path: Path) -> int:
    while True:
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            # not inherited by the programs that this process starts: they may outlive it
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise _unwritable(folder, error) from error
        with ExitStack() as unless_taken:
            unless_taken.callback(os.close, lock)
            _lock(lock, folder)
            # whoever held it may have removed the file since
            if is_at(path, lock):
                unless_taken.pop_all()
                return lock


def _lock(lock: int, folder: StudyFolder) -> None:
    try:
        _flock(lock)
    except BlockingIOError:
        holder = os.pread(lock, 1000, 0).decode(errors="replace").strip() or "its lock names none"
        raise StudyError(
            f"study '{folder.name}' is run by another process ({holder}); wait for its end or stop it, then go on "
            f"with --name {folder.name} --resume; or give another --name"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise StudyError(
            f"{folder.path} lies on a file system without locks ({error.strerror}), where two processes could write "
            "one study; set HARNESS_RESULTS to a folder on another disk"
        ) from error


def _flock(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # it may only be looked at, by `is_driven`
        time.sleep(_LOOK)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unwritable(folder: StudyFolder, error: OSError) -> StudyError:
    return StudyError(
        f"study '{folder.name}': {folder.path} cannot be written ({error.strerror}); mend that, or set HARNESS_RESULTS "
        "to a folder that can"
    )
