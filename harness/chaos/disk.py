"""A small disk of a search's own, in memory: it can be filled without harm to anybody else's."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

#: bytes beside what the search leaves at its end, for what it writes and removes again
_SPARE = 64 * 2**20
#: a search has up to three files of weights under way for each that it leaves
_TIMES = 4
_CHUNK = bytes(2**20)


def size_for(results: Path) -> int:
    """Bytes of a disk that a search like one that left these results does not fill."""
    return _SPARE + _TIMES * sum(path.stat().st_size for path in results.rglob("*") if path.is_file())


def why_not(home: Path, size: int) -> str | None:
    """What keeps such a disk from being mounted here; None where nothing does."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not _can_mount(home / "probe"):
        return "needs root on Linux"
    if size > psutil.virtual_memory().available / 4:
        return f"needs {4 * size / 2**20:,.0f} MB of free memory"
    return None


def _can_mount(probe: Path) -> bool:
    probe.mkdir()
    # root of a container may not
    mounted = _mount(probe, 2**20).returncode == 0
    if mounted:
        _unmount(probe)
    probe.rmdir()
    return mounted


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[None]:
    """Be a folder that is a disk of so many bytes; when this context ends, the folder keeps the files without it."""
    path.mkdir()
    _mount(path, size).check_returncode()
    kept = path.with_name(f"{path.name}-kept")
    try:
        yield
    finally:
        try:
            shutil.copytree(path, kept)
        finally:
            _unmount(path)
            path.rmdir()
        kept.rename(path)


def _mount(path: Path, size: int) -> subprocess.CompletedProcess:
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "harness-chaos", str(path)]
    return subprocess.run(words, capture_output=True)


def _unmount(path: Path) -> None:
    # lazily: a process that was just killed may hold a file
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(ballast: Path) -> None:
    """Write a file until its disk, one of our own, has no byte left.

    Raises:
        ValueError: the folder is not the root of a disk of its own.
    """
    if not os.path.ismount(ballast.parent):
        raise ValueError(f"{ballast.parent} lies on a disk that others use")
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(_CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
