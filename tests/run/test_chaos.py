"""A short chaos of a real search, its drivers forked from a process that has loaded all: each starts at once."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.chaos import Plan, chaos, faults, report_table, run
from harness.chaos.driver import Command, Driver
from harness.config import dump_yaml

SECONDS = 4.0
LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}
MAIN = """
import os, sys
os.environ |= environment
from harness.cli import main
sys.argv = list(words)
main()
"""


class Forked:
    """A forked process with the methods of `subprocess.Popen`."""

    def __init__(self, process) -> None:
        self.forked, self.pid = process, process.pid

    def poll(self) -> int | None:
        return self.forked.poll()

    @property
    def returncode(self) -> int | None:
        return self.forked.code

    def wait(self, seconds: float | None = None) -> int:
        end = None if seconds is None else time.monotonic() + seconds
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("harness search", seconds)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.forked.kill()


@pytest.fixture
def forked_drivers(forks, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(command: Command) -> Driver:
        resume = ["--resume"] if command.folder.settings.exists() else []
        words = ["harness", "search", str(command.space), "--name", command.folder.name, *command.options, *resume]
        folders = {"HARNESS_RESULTS": str(command.results), "HARNESS_CACHE": str(command.cache)}
        return Driver(Forked(forks.start(MAIN, command.log, words=words, environment=folders)))

    monkeypatch.setattr(Command, "start", start)


def test_a_search_that_is_disturbed_again_and_again_ends_as_the_one_left_alone(
    forked_drivers, tiny_space, tmp_path, monkeypatch
):
    for name, value in {"SPACING": 1.0, "_AGAIN": 0.2, "_NEWS": 0.1}.items():
        monkeypatch.setattr(run, name, value)
    monkeypatch.setattr(faults, "SUSPENDED", (0.0, 0.3))
    (tmp_path / "home").mkdir()
    space = tmp_path / "space.yaml"
    space.write_text(dump_yaml(tiny_space(LR, trials=4).model_dump(mode="json")))

    report = chaos(tmp_path / "home", Plan(space, (), SECONDS, 0, executor="inprocess"), lambda _: None)

    console = Console(file=io.StringIO(), width=100)
    console.print(report_table(report))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    shown = {row[0]: row[1] for row in rows if len(row) == 2}
    assert int(shown["faults injected"]) > 0
    assert int(shown["trials finished"]) == 4 * int(shown["searches that came to their end"])
    assert [shown[f"epochs {what}"] for what in ("lost", "doubled", "changed")] == ["0", "0", "0"]
    assert shown["best equal"] == "yes" and report.good()
    assert Path(tmp_path / "home" / "alone" / "results" / "study" / "trials.jsonl").exists()
