"""Small real processes in the place of drivers, workers and nodes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from harness.chaos import disk
from harness.chaos.driver import Command

#: runs a program that sleeps under the name that it is given, and ends with it
PARENT = "import subprocess, sys; subprocess.run([sys.argv[1], '1000'], executable='/bin/sleep')"
#: seconds that a busy machine may need, many times what it takes
PATIENCE = 60.0


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    return wait


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a Python program, given as text; nothing of it outlives the test."""
    started: list[subprocess.Popen] = []

    def run(code: str, *words: str) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", code, *words]))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


@pytest.fixture
def start_parent(start, wait_until) -> Callable[[str], subprocess.Popen]:
    """Start a process with one child that sleeps under a name."""

    def run(name: str) -> subprocess.Popen:
        process = start(PARENT, name)
        wait_until(lambda: [one for one in psutil.Process(process.pid).children() if one.cmdline()[:1] == [name]])
        return process

    return run


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A search of which nothing is there but its home."""
    return Command(tmp_path, tmp_path / "space.yaml", ())


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Make a folder a disk of one megabyte."""
    if (why := disk.why_not(tmp_path, 2**20)) is not None:
        pytest.skip(f"no disk can be mounted: {why}")
    with ExitStack() as until_the_end:
        yield lambda path: until_the_end.enter_context(disk.small_disk(path, 2**20))
