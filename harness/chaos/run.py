"""Rounds of one search, disturbed at random until the time is over, each compared with the search left alone."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.chaos import disk
from harness.chaos.cluster import local_cluster
from harness.chaos.compare import Verdict, compare
from harness.chaos.driver import Command, Driver
from harness.chaos.faults import DISK, FAULTS, NODES, WORKERS, Fault
from harness.errors import TrainingError

#: a fault comes at a random moment up to so many seconds after the start of a driver, or after the last fault
SPACING = 20.0
#: as `SPACING`, after a fault that found nothing to strike: a worker may be there soon
_AGAIN = 5.0
#: how often in a row that may happen, until faults come again that had their turn: a minute, many times what it takes
_IN_VAIN = 24
_LOOK = 0.1
#: seconds after which a search is asked how far it is
_NEWS = 5.0
#: seconds without a new row, many times what an epoch of such a search takes, after which it will not come to its end
STALLED = 1800.0


@dataclass(frozen=True)
class Plan:
    """What is disturbed, and for how long."""

    space: Path
    #: of `harness search`, the same for all
    options: tuple[str, ...]
    seconds: float
    seed: int
    executor: str = "ray"
    #: of a cluster on this machine; 1: a Ray of the driver's own
    nodes: int = 1
    #: of one trial
    cpus: float = 1.0


@dataclass
class Report:
    """Faults by name, those that were left out and why, and the verdict on each search that came to its end."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    def good(self) -> bool:
        return bool(self.verdicts) and all(verdict.good() for verdict in self.verdicts)


class Faults:
    """Every fault once in a random order, then all again; one that finds nothing to strike comes later."""

    def __init__(self, rng: random.Random, kinds: tuple[Fault, ...]) -> None:
        self.rng, self.kinds, self.left, self.in_vain = rng, kinds, list[Fault](), 0

    def strike(self, command: Command, driver: Driver) -> Fault | None:
        """Strike with the next fault; None where there was nothing to strike."""
        if not self.left or self.in_vain == _IN_VAIN:
            self._refill()
        fault = self.left.pop()
        if fault.strike(command, driver, self.rng):
            self.in_vain = 0
            return fault
        self.left.insert(0, fault)
        self.in_vain += 1
        return None

    def _refill(self) -> None:
        others = [fault for fault in self.kinds if fault not in self.left]
        self.left += self.rng.sample(others, len(others))
        self.in_vain = 0


def chaos(home: Path, plan: Plan, say: Callable[[str], None]) -> Report:
    """Disturb searches of a space for so many seconds; the last one is then left to come to its end.

    Args:
        home: an empty folder, for everything that is written.

    Raises:
        TrainingError: the undisturbed search fails, or a disturbed one does not come to its end.
    """
    alone = Command(home / "alone", plan.space, (*plan.options, "--executor", "inprocess"))
    say("the search left alone")
    _leave_alone(alone)
    size = disk.size_for(alone.results)
    missing = _missing(plan, disk.why_not(home, size))
    report = Report(plan.seed, left_out={one.name: missing[one.needs] for one in FAULTS if one.needs in missing})
    kinds = tuple(fault for fault in FAULTS if fault.needs not in missing)
    faults, until = Faults(random.Random(plan.seed), kinds), time.monotonic() + plan.seconds
    while time.monotonic() < until or not report.verdicts:
        say(f"round {len(report.verdicts) + 1}")
        # caches are built anew in every round: their builders are struck too
        options = (*plan.options, "--executor", plan.executor)
        command = Command(home / f"round-{len(report.verdicts)}", plan.space, options)
        with _placed(command, plan, None if DISK in missing else size) as placed:
            _disturb(placed, report, faults, until, say)
        report.verdicts.append(compare(command.folder, alone.folder))
    return report


def _leave_alone(command: Command) -> None:
    command.home.mkdir()
    driver = command.start()
    try:
        _end(driver, command)
    finally:
        driver.end()


def _missing(plan: Plan, without_disk: str | None) -> dict[str, str]:
    """What faults need and do not find here, and why."""
    reasons = {
        WORKERS: "needs --executor ray" if plan.executor != "ray" else None,
        NODES: "needs --nodes 2" if plan.nodes == 1 else None,
        DISK: without_disk,
    }
    return {needed: why for needed, why in reasons.items() if why is not None}


@contextmanager
def _placed(command: Command, plan: Plan, size: int | None) -> Iterator[Command]:
    """Give a search a home, a disk of so many bytes for its results and a cluster, where they are wanted."""
    command.home.mkdir()
    with ExitStack() as until_its_end:
        if size is not None:
            until_its_end.enter_context(disk.small_disk(command.results, size))
        if plan.nodes > 1:
            cluster = local_cluster(command.home, command.cache, plan.nodes, plan.cpus)
            command = replace(command, cluster=until_its_end.enter_context(cluster))
        yield command


def _disturb(command: Command, report: Report, faults: Faults, until: float, say: Callable[[str], None]) -> None:
    """Strike a search until its end, or until the time is over."""
    driver, spacing = command.start(), SPACING
    try:
        while time.monotonic() < until and _lives_through(driver, faults.rng.uniform(0.0, spacing)):
            fault = faults.strike(command, driver)
            spacing = _AGAIN if fault is None else SPACING
            if fault is not None:
                report.faults[fault.name] += 1
                say(fault.name)
            if not driver.runs():
                driver = command.start()
        _end(driver, command)
    finally:
        driver.end()


def _lives_through(driver: Driver, seconds: float) -> bool:
    """Whether a driver still runs after so many seconds."""
    end = time.monotonic() + seconds
    while driver.runs() and time.monotonic() < end:
        time.sleep(_LOOK)
    return driver.runs()


def _end(driver: Driver, command: Command) -> None:
    """Let a search come to its end."""
    rows, since = -1, time.monotonic()
    while (code := driver.wait(_NEWS)) is None:
        if (now := _bytes_of(command)) != rows:
            rows, since = now, time.monotonic()
        if time.monotonic() > since + STALLED:
            raise TrainingError(f"a search wrote no row for {STALLED:g} s; what it said is in {command.log}")
    if code != 0:
        raise _failed(driver, command)


def _bytes_of(command: Command) -> int:
    """Size of a search's journals."""
    journals = (command.folder.epochs.path, command.folder.trials.path)
    return sum(path.stat().st_size for path in journals if path.exists())


def _failed(driver: Driver, command: Command) -> TrainingError:
    last = command.log.read_text(errors="replace").strip().splitlines()[-1:]
    return TrainingError(
        f"a search ended with exit code {driver.process.returncode} instead of 0, its last words: {' '.join(last)}; "
        f"all of them are in {command.log}"
    )
