"""Rounds of one search, disturbed at random until the time is over, each compared with the search left alone."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.chaos.compare import Verdict, compare
from harness.chaos.driver import Command, Driver
from harness.chaos.faults import FAULTS, Fault
from harness.errors import TrainingError

#: a fault comes at a random moment up to so many seconds after the start of a driver, or after the last fault
SPACING = 20.0
_LOOK = 0.1


@dataclass
class Report:
    """Faults by name, and the verdict on each search that came to its end."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    verdicts: list[Verdict] = field(default_factory=list)

    def good(self) -> bool:
        return bool(self.verdicts) and all(verdict.good() for verdict in self.verdicts)


class Faults:
    """Every fault once in a random order, then all again; one that finds nothing to strike comes later."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.left = rng, list[Fault]()

    def strike(self, command: Command, driver: Driver) -> Fault | None:
        """Strike with the next fault; None where there was nothing to strike."""
        self.left = self.left or self.rng.sample(FAULTS, len(FAULTS))
        fault = self.left.pop()
        if fault.strike(command, driver, self.rng):
            return fault
        self.left.insert(0, fault)
        return None


def chaos(
    home: Path, space: Path, options: tuple[str, ...], seconds: float, seed: int, say: Callable[[str], None]
) -> Report:
    """Disturb searches of a space for so many seconds; the last one is then left to come to its end.

    Args:
        home: an empty folder, for everything that is written.
        options: of `harness search`, the same for all.

    Raises:
        TrainingError: the undisturbed search fails, or a disturbed one does not come to its end.
    """
    alone = Command(home / "alone", space, (*options, "--executor", "inprocess"))
    say("the search left alone")
    _end(_prepared(alone).start(), alone)
    report, faults, until, number = Report(seed), Faults(random.Random(seed)), time.monotonic() + seconds, 0
    while time.monotonic() < until or not report.verdicts:
        # caches are built anew in every round: their builders are struck too
        command = _prepared(replace(alone, home=home / f"round-{number}", options=options))
        say(f"round {number + 1}")
        _disturb(command, report, faults, until, say)
        report.verdicts.append(compare(command.folder, alone.folder))
        number += 1
    return report


def _prepared(command: Command) -> Command:
    command.home.mkdir()
    return command


def _disturb(command: Command, report: Report, faults: Faults, until: float, say: Callable[[str], None]) -> None:
    """Strike a search until its end, or until the time is over."""
    driver = command.start()
    while time.monotonic() < until:
        if not _lives_through(driver, faults.rng.uniform(0.0, SPACING)):
            if driver.wait() == 0:
                return
            raise _failed(driver, command)
        fault = faults.strike(command, driver)
        if fault is not None:
            report.faults[fault.name] += 1
            say(fault.name)
        if not driver.runs():
            driver = command.start()
    _end(driver, command)


def _lives_through(driver: Driver, seconds: float) -> bool:
    """Whether a driver still runs after so many seconds."""
    end = time.monotonic() + seconds
    while driver.runs() and time.monotonic() < end:
        time.sleep(_LOOK)
    return driver.runs()


def _end(driver: Driver, command: Command) -> None:
    """Let a search come to its end."""
    if driver.wait() != 0:
        raise _failed(driver, command)


def _failed(driver: Driver, command: Command) -> TrainingError:
    log = command.home / "driver.log"
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return TrainingError(
        f"a search ended with exit code {driver.process.returncode} instead of 0, its last words: {' '.join(last)}; "
        f"all of them are in {log}"
    )
