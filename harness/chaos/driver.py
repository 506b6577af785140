"""The driver of a search as a process of its own, which can be struck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.store import StudyFolder


@dataclass(frozen=True)
class Command:
    """`harness search` over one space into one study, whose results and caches lie in a folder of their own."""

    home: Path
    space: Path
    options: tuple[str, ...]

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.home / "results" / "study")

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def start(self) -> Driver:
        """Start or go on with the search."""
        resume = ["--resume"] if self.folder.settings.exists() else []
        words = [sys.executable, "-m", "harness", "search", str(self.space), "--name", self.folder.name]
        log = open(self.home / "driver.log", "ab")
        with log:
            process = subprocess.Popen(
                [*words, *self.options, *resume],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # its own group: a Ctrl-C at this terminal is not one of the faults
                start_new_session=True,
            )
        return Driver(process)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HARNESS_RESULTS": str(self.folder.path.parent), "HARNESS_CACHE": str(self.cache)}


@dataclass(frozen=True)
class Driver:
    """A running search."""

    process: subprocess.Popen

    def runs(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[psutil.Process]:
        """Ray's processes that train a trial."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [one for one in below if _name(one).startswith("ray::TrialActor")]

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


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""
