"""The driver of a search as a process of its own, which can be struck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.chaos.cluster import LocalCluster
from harness.chaos.processes import kill_all, workers_below
from harness.store import StudyFolder

#: seconds in which a driver's workers end after it
_FOLLOW = 60.0


@dataclass(frozen=True)
class Command:
    """`harness search` over one space into one study, whose results and caches lie in a folder of their own."""

    home: Path
    space: Path
    options: tuple[str, ...]
    #: the cluster that it joins; none: a Ray of its own, or none
    cluster: LocalCluster | None = None

    @property
    def results(self) -> Path:
        return self.home / "results"

    @property
    def log(self) -> Path:
        """What all its drivers said."""
        return self.home / "driver.log"

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.results / "study")

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def start(self) -> Driver:
        """Start or go on with the search."""
        resume = ["--resume"] if self.folder.settings.exists() else []
        words = [sys.executable, "-m", "harness", "search", str(self.space), "--name", self.folder.name]
        join = ["--address", self.cluster.address] if self.cluster else []
        log = open(self.log, "ab")
        with log:
            process = subprocess.Popen(
                [*words, *self.options, *join, *resume],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # its own group: a Ctrl-C at this terminal is not one of the faults
                start_new_session=True,
            )
        return Driver(process, self.cluster)

    @property
    def environment(self) -> dict[str, str]:
        folders = {"HARNESS_RESULTS": str(self.results), "HARNESS_CACHE": str(self.cache)}
        return os.environ | folders | (self.cluster.key if self.cluster else {})


@dataclass(frozen=True)
class Driver:
    """A running search."""

    process: subprocess.Popen
    cluster: LocalCluster | None = None

    def runs(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[psutil.Process]:
        """Ray's processes that train a trial: below the driver, or below the nodes of the cluster that it joined."""
        above = [self.process.pid, *(node.pid for node in (self.cluster.nodes if self.cluster else ()))]
        return [worker for pid in above for worker in workers_below(pid)]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code; None where it runs on after so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill the driver alone, as the system does when memory is short: Ray has to notice by itself."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Kill the driver where it runs, and wait until Ray has ended its workers: nobody writes its study then."""
        workers = self.workers()
        self.kill()
        kill_all(workers, _FOLLOW)
