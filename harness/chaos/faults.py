"""The faults: what happens to a driver, to its workers and nodes, to its disk, and to the files that they leave.

A trial that runs out of memory, raises or has a loss that is not finite fails, and its search goes another way, as it
should: such faults change results by design and are none of these.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.chaos.disk import fill
from harness.chaos.driver import Command, Driver
from harness.chaos.processes import workers_below
from harness.errors import TrainingError
from harness.run.driver_lock import is_driven


class Fault(NamedTuple):
    """One way in which a search is disturbed; `strike` says whether there was anything to strike."""

    name: str
    strike: Callable[[Command, Driver, random.Random], bool]
    #: what it takes, of `WORKERS`, `NODES` and `DISK`; none: nothing but a driver
    needs: str = ""


WORKERS, NODES, DISK = "workers", "nodes", "disk"

#: seconds that a driver has to end in order once it was asked to, or has no room
PATIENCE = 120.0
#: seconds, at least and at most, for which a worker trains before it is struck
TRAINING = (0.0, 5.0)
#: seconds, at least and at most, for which a process stands still
SUSPENDED = (3.0, 15.0)
#: seconds, at least and at most, until another node takes the place of a lost one
MISSING = (0.0, 10.0)
_LOOK = 0.1
#: exit code of a driver that ended in order before its time
INTERRUPTED = 130


def kill_worker(command: Command, driver: Driver, rng: random.Random) -> bool:
    workers = _training(driver, rng)
    if not workers:
        return False
    try:
        rng.choice(workers).kill()
    except psutil.NoSuchProcess:
        return False
    return True


def suspend_worker(command: Command, driver: Driver, rng: random.Random) -> bool:
    workers = _training(driver, rng)
    return bool(workers) and _suspend(rng.choice(workers).pid, rng)


def _training(driver: Driver, rng: random.Random) -> list[psutil.Process]:
    """Workers at a random moment after one is there; none where their driver ends before."""
    until = time.monotonic() + PATIENCE
    while driver.runs() and not driver.workers() and time.monotonic() < until:
        time.sleep(_LOOK)
    time.sleep(rng.uniform(*TRAINING))
    return driver.workers()


def kill_driver(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.kill()
    return True


def suspend_driver(command: Command, driver: Driver, rng: random.Random) -> bool:
    """A laptop that sleeps, a machine that stalls: everybody else finds a driver that does not answer."""
    return _suspend(driver.process.pid, rng)


def _suspend(pid: int, rng: random.Random) -> bool:
    try:
        process = psutil.Process(pid)
        process.suspend()
        try:
            time.sleep(rng.uniform(*SUSPENDED))
        finally:
            process.resume()
    except psutil.NoSuchProcess:
        return False
    return True


def interrupt(command: Command, driver: Driver, rng: random.Random) -> bool:
    return _ends_in_order(command, driver, lambda: driver.signal(signal.SIGINT), -signal.SIGINT)


def terminate(command: Command, driver: Driver, rng: random.Random) -> bool:
    return _ends_in_order(command, driver, lambda: driver.signal(signal.SIGTERM), -signal.SIGTERM)


def interrupt_twice(command: Command, driver: Driver, rng: random.Random) -> bool:
    def strike() -> None:
        driver.signal(signal.SIGINT)
        if driver.wait(rng.uniform(0.0, 0.5)) is None:
            driver.signal(signal.SIGINT)

    return _ends_in_order(command, driver, strike, -signal.SIGINT, always=True)


def _ends_in_order(
    command: Command, driver: Driver, strike: Callable[[], None], killed: int, always: bool = False
) -> bool:
    """Ask a driver to end, and look how it does; False where it came to its end before.

    Args:
        killed: its exit code where nothing takes the signal: right as long as it has written no row, or no longer
            drives its study.
        always: whether that is right at any time: Python puts its handlers away before it ends.

    Raises:
        TrainingError: it does not end, or with another exit code than it should.
    """
    drives = is_driven(command.folder)
    allowed = {0, INTERRUPTED} | ({killed} if always or not (drives and _has_written(command, driver)) else set())
    strike()
    code = driver.wait(PATIENCE)
    if code is None or (drives and code not in allowed):
        raise _wrong(command, f"a driver that was asked to end did not end with exit code {INTERRUPTED}", code)
    return code == INTERRUPTED


def _has_written(command: Command, driver: Driver) -> bool:
    """Whether a driver has written a row since it started: it has long begun to take signals."""
    try:
        written = command.folder.epochs.path.stat().st_mtime
        return written > psutil.Process(driver.process.pid).create_time()
    except (FileNotFoundError, psutil.NoSuchProcess):
        return False


def _wrong(command: Command, what: str, code: int | None) -> TrainingError:
    found = f"but runs on after {PATIENCE:g} s" if code is None else f"but with {code}"
    return TrainingError(f"{what}, {found}; what it said is in {command.log}")


def second_driver(command: Command, driver: Driver, rng: random.Random) -> bool:
    """Start the same study twice; nothing was struck where the first one ended meanwhile.

    Raises:
        TrainingError: the second one is not refused.
    """
    if not command.folder.settings.exists() or not driver.runs():
        return False
    second = command.start()
    try:
        code = second.wait(PATIENCE)
        if code != 2 and driver.runs():
            raise _wrong(command, "a second driver of a study was not refused with exit code 2", code)
    finally:
        second.end()
    return code == 2


def torn_line(command: Command, driver: Driver, rng: random.Random) -> bool:
    """A driver that is killed in the middle of writing a row."""
    journal = rng.choice([command.folder.epochs, command.folder.trials]).path
    if not journal.exists():
        return False
    driver.kill()
    whole = journal.read_bytes().splitlines() or [b'{"trial": "']
    with open(journal, "ab") as file:
        file.write(whole[-1][: rng.randrange(1, len(whole[-1]))])
    return True


def damaged_checkpoint(command: Command, driver: Driver, rng: random.Random) -> bool:
    return _damage(command.folder.path, "runs/*/last.safetensors", driver, rng)


def damaged_cache(command: Command, driver: Driver, rng: random.Random) -> bool:
    return _damage(command.cache, "*/*.npy", driver, rng)


def lose_node(command: Command, driver: Driver, rng: random.Random) -> bool:
    """A node that trains loses power, and another one comes some seconds later."""
    cluster = command.cluster
    workers = {worker.pid for worker in _training(driver, rng)}
    training = [node for node in cluster.others() if workers & {worker.pid for worker in workers_below(node.pid)}]
    if not training:
        return False
    cluster.lose(rng.choice(training))
    time.sleep(rng.uniform(*MISSING))
    cluster.add()
    # a driver that starts before Ray knows is told of the dead node, and ends
    cluster.settle()
    return True


def fill_disk(command: Command, driver: Driver, rng: random.Random) -> bool:
    """Leave no byte for the files of a study, begun or not, until its driver has stopped by itself.

    Raises:
        TrainingError: it does not end, or with another exit code than it should.
    """
    ballast = command.results / "ballast"
    try:
        fill(ballast)
        code = driver.wait(PATIENCE)
    finally:
        ballast.unlink(missing_ok=True)
    if code not in (0, TrainingError.exit_code):
        raise _wrong(command, "a driver without room did not end with exit code 3", code)
    return code != 0


FAULTS = (
    Fault("worker killed (-9)", kill_worker, WORKERS),
    Fault("worker suspended", suspend_worker, WORKERS),
    Fault("driver killed (-9)", kill_driver),
    Fault("driver suspended", suspend_driver),
    Fault("Ctrl-C", interrupt),
    Fault("Ctrl-C twice", interrupt_twice),
    Fault("SIGTERM", terminate),
    Fault("second driver refused", second_driver),
    Fault("torn line in a journal", torn_line),
    Fault("damaged checkpoint", damaged_checkpoint),
    Fault("damaged cache", damaged_cache),
    Fault("node lost", lose_node, NODES),
    Fault("disk full", fill_disk, DISK),
)


def _damage(folder: Path, pattern: str, driver: Driver, rng: random.Random) -> bool:
    """Kill a driver, and cut a file short that is there then, or change one byte in the second half of it."""
    if not list(folder.glob(pattern)):
        return False
    # a worker that lives on for a moment would replace the file
    driver.end()
    files = sorted(folder.glob(pattern))
    if not files:
        return False
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content) // 2, len(content))
    if rng.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 0xFF
    path.write_bytes(content)
    return True
