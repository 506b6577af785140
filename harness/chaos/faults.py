"""The faults: what happens to a driver, to its workers, and to the files that they leave."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.chaos.driver import Command, Driver


class Fault(NamedTuple):
    """One way in which a search is disturbed; `strike` says whether there was anything to strike."""

    name: str
    strike: Callable[[Command, Driver, random.Random], bool]


#: seconds that a driver has to end in order once it was asked to
PATIENCE = 120.0


def kill_worker(command: Command, driver: Driver, rng: random.Random) -> bool:
    workers = driver.workers()
    if not workers:
        return False
    rng.choice(workers).kill()
    return True


def kill_driver(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.kill()
    return True


def interrupt(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.signal(signal.SIGINT)
    return driver.wait(PATIENCE) is not None


def terminate(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.signal(signal.SIGTERM)
    return driver.wait(PATIENCE) is not None


def interrupt_twice(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.signal(signal.SIGINT)
    if driver.wait(rng.uniform(0.0, 0.5)) is None:
        driver.signal(signal.SIGINT)
    return driver.wait(PATIENCE) is not None


def second_driver(command: Command, driver: Driver, rng: random.Random) -> bool:
    """Start the same study twice; nothing was struck unless the second was refused."""
    if not command.folder.settings.exists() or not driver.runs():
        return False
    second = command.start()
    refused = second.wait(PATIENCE) == 2
    if not refused:
        second.kill()
    return refused


def torn_line(command: Command, driver: Driver, rng: random.Random) -> bool:
    """A driver that is killed in the middle of writing a row."""
    driver.kill()
    journal = rng.choice([command.folder.epochs, command.folder.trials]).path
    if not journal.exists():
        return False
    whole = journal.read_bytes().splitlines() or [b'{"trial": "']
    with open(journal, "ab") as file:
        file.write(whole[-1][: rng.randrange(1, len(whole[-1]))])
    return True


def damaged_checkpoint(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.kill()
    return _damage(sorted(command.folder.path.glob("runs/*/last.safetensors")), rng)


def damaged_cache(command: Command, driver: Driver, rng: random.Random) -> bool:
    driver.kill()
    return _damage(sorted(command.cache.glob("*/*.npy")), rng)


FAULTS = (
    Fault("worker killed (-9)", kill_worker),
    Fault("driver killed (-9)", kill_driver),
    Fault("Ctrl-C", interrupt),
    Fault("Ctrl-C twice", interrupt_twice),
    Fault("SIGTERM", terminate),
    Fault("second driver refused", second_driver),
    Fault("torn line in a journal", torn_line),
    Fault("damaged checkpoint", damaged_checkpoint),
    Fault("damaged cache", damaged_cache),
)


def _damage(files: list[Path], rng: random.Random) -> bool:
    """Cut a file short, or change one byte in the second half of it."""
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
