"""Ctrl-C and SIGTERM, once and twice, sent to `harness search` as a terminal or a cluster would send them."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from harness.config import dump_yaml
from harness.engine.checkpoint import load_header
from harness.run import Resources, run_search
from harness.run.interrupt import Stop, Stoppable, stoppable
from harness.store import RunFolder, StudyFolder

HARNESS = Path(sys.executable).with_name("harness")
SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}
SAID = "finishing the epoch in hand; Ctrl-C again stops at once"
MAIN = """
import os, sys
from harness.cli import main
os.environ["HARNESS_RESULTS"] = results
sys.argv = list(words)
main()
"""
#: before it: the sixteenth epoch never ends
STUCK = """
import itertools, time
from harness.run.worker import TrialRun
next_row, count = TrialRun.next_row, itertools.count(1)
def stuck(run):
    if next(count) == 16:
        time.sleep(10_000)
    return next_row(run)
TrialRun.next_row = stuck
"""
#: seconds that a busy machine may need to start Ray, many times what it takes
PATIENCE = 300


def journals(folder: StudyFolder) -> list[list[dict]]:
    return [[row.model_dump(exclude=SECONDS) for row in journal.read()] for journal in (folder.trials, folder.epochs)]


def epochs_written(folder: StudyFolder) -> int:
    path = folder.epochs.path
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Driver:
    """`harness search`, started as a terminal starts a program."""

    def __init__(self, process, folder: StudyFolder, said: Path) -> None:
        self.process, self.folder, self.said = process, folder, said
        self.family: list[psutil.Process] = []

    def wait_for_epochs(self, count: int) -> None:
        """Until so many epochs are in the journal."""
        wait_until(lambda: epochs_written(self.folder) >= count or self.process.poll() is not None)
        assert self.process.poll() is None, self.said.read_text()
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def ctrl_c(self) -> None:
        """As a terminal: to every process of the group in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for_orphans(self) -> None:
        """Until nothing of it is left but Ray's agents, which look only now and then whether their node still lives."""
        wait_until(lambda: not [p for p in self.family if p.is_running() and "Agent" not in words_of(p)])


@pytest.fixture
def drive(forks, results, study, tiny_space, tiny, tmp_path) -> Iterator[Callable[..., Driver]]:
    """Start `harness search` on three trials of twelve epochs, stopped at none; nothing of it outlives the test."""
    path = tmp_path / "space.yaml"
    path.write_text(dump_yaml(space_of(tiny_space, tiny).model_dump(mode="json")))
    started: list[Driver] = []

    def start(*words: str, before: str = "") -> Driver:
        said = tmp_path / f"said-{len(started)}"
        words = ("harness", "search", str(path), "--seed", "1", "--name", study.name, "--concurrency", "1", *words)
        process = forks.start(before + MAIN, said, words=words, results=str(results))
        started.append(Driver(process, study, said))
        return started[-1]

    yield start
    for driver in started:
        driver.process.kill()


def space_of(tiny_space, tiny):
    return tiny_space(LR, trials=3, experiment=tiny(training__epochs=12))


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


@pytest.fixture
def undisturbed(results, tiny_space, tiny, console) -> list[list[dict]]:
    """The journals of the same search, run in this process."""
    folder = StudyFolder(results / "whole")
    run_search(folder, space_of(tiny_space, tiny), Resources("inprocess"), console, seed=1)
    return journals(folder)


@pytest.fixture
def go_on(study, tiny_space, tiny, console) -> Callable[[], object]:
    """Resume the search in this process."""
    return partial(run_search, study, space_of(tiny_space, tiny), Resources("inprocess"), console, seed=1, resume=True)


def resume_command(driver: Driver) -> list[str]:
    """The words of the command that it printed."""
    (line,) = [line for line in driver.said.read_text().splitlines() if "go on with: " in line]
    return shlex.split(line.partition("go on with: ")[2])


def run_printed_command(driver: Driver) -> None:
    program, *words = resume_command(driver)
    assert program == "harness" and words[-3:] == ["--name", "hunt", "--resume"]
    done = subprocess.run([HARNESS, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def last_checkpoint(folder: StudyFolder) -> int:
    """The epoch from which the trial that was cut short goes on."""
    trial = folder.epochs.read()[-1].trial
    return load_header(RunFolder(folder.run(trial).path).last)["rows"][-1]["epoch"]


def test_the_first_signal_lets_the_epoch_end_and_the_command_it_prints_goes_on_as_if_nothing_had_been(
    drive, study, undisturbed
):
    driver = drive("--executor", "inprocess")
    driver.wait_for_epochs(3)
    os.kill(driver.process.pid, signal.SIGTERM)
    assert driver.process.wait() == 130
    said = driver.said.read_text()
    assert SAID in said and "Traceback" not in said
    assert epochs_written(study) < 36 and last_checkpoint(study) == study.epochs.read()[-1].epoch
    assert not (study.path / "driver.lock").exists()
    run_printed_command(driver)
    assert journals(study) == undisturbed


def test_ctrl_c_in_a_terminal_reaches_the_processes_of_a_loader_too_and_hurts_none_of_them(drive, study):
    driver = drive("--executor", "inprocess", "--set", "training.workers=2", "--trials", "1", "--max-epochs", "4")
    reached = set()
    while driver.process.poll() is None:
        for process in psutil.Process(driver.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGINT)
                reached.add(process.pid)
        time.sleep(0.01)
    assert driver.process.wait() == 0, driver.said.read_text()
    assert len(reached) >= 4 * 2
    assert [(row.outcome, row.epochs) for row in study.trials.read()] == [("complete", 4)]


def test_the_second_signal_stops_in_the_middle_of_an_epoch_and_the_study_goes_on_all_the_same(
    drive, study, undisturbed, go_on
):
    driver = drive("--executor", "inprocess", before=STUCK)
    driver.wait_for_epochs(15)
    driver.ctrl_c()
    wait_until(lambda: SAID in driver.said.read_text())
    assert driver.process.poll() is None
    driver.ctrl_c()
    assert driver.process.wait() == 130
    assert "Traceback" not in driver.said.read_text()
    assert resume_command(driver)[-3:] == ["--name", "hunt", "--resume"]
    assert [row.outcome for row in study.trials.read()] == ["complete"]
    go_on()
    assert journals(study) == undisturbed


@pytest.mark.skipif("HARNESS_LONG_TESTS" not in os.environ, reason="three starts of Ray and torch: make test-long")
def test_on_ray_after_ctrl_c_a_killed_driver_and_two_ctrl_c_the_journals_are_those_of_an_undisturbed_search(
    drive, study, undisturbed, go_on
):
    first = drive("--executor", "ray")
    first.wait_for_epochs(3)
    first.ctrl_c()
    assert first.process.wait() == 130
    assert SAID in first.said.read_text() and "Traceback" not in first.said.read_text()
    assert last_checkpoint(study) == study.epochs.read()[-1].epoch
    first.wait_for_orphans()

    second = drive("--executor", "ray", "--resume")
    second.wait_for_epochs(14)
    second.process.kill()
    second.wait_for_orphans()

    third = drive("--executor", "ray", "--resume")
    third.wait_for_epochs(18)
    third.ctrl_c()
    wait_until(lambda: SAID in third.said.read_text())
    if third.process.poll() is None:
        third.ctrl_c()
    assert third.process.wait() == 130
    third.wait_for_orphans()

    go_on()
    assert journals(study) == undisturbed


class Endless:
    """A study that always has another trial."""

    folder = record = None

    def next_trial(self):
        return "a trial"

    def waits(self) -> bool:
        return True

    def on_epoch(self, row) -> bool:
        return row == "not the last"

    def on_end(self, trial_id, error=None):
        return f"row of {trial_id}"

    def resumable(self):
        return ("paused",)


def test_once_asked_no_trial_starts_none_is_waited_for_and_none_begins_another_epoch():
    stop = Stop()
    study = Stoppable(Endless(), stop)
    assert study.next_trial() == "a trial" and study.waits()
    assert study.on_epoch("not the last") and not study.on_epoch("the last")
    stop.on_signal(signal.SIGINT, None)
    assert study.next_trial() is None and not study.waits()
    assert not study.on_epoch("not the last")
    assert study.on_end("it") == "row of it" and study.resumable() == ("paused",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_handlers_hold_for_as_long_as_trials_run_and_those_before_are_put_back(number):
    before = signal.getsignal(number)
    console = Console(file=io.StringIO(), width=100)
    with pytest.raises(KeyboardInterrupt), stoppable(console) as stop:
        os.kill(os.getpid(), number)
        assert stop.asked
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert console.file.getvalue() == SAID + "\n"


def test_without_a_signal_nothing_is_said_and_no_thread_stays():
    console = Console(file=io.StringIO())
    before = threading.active_count()
    with stoppable(console) as stop:
        pass
    assert not stop.asked and console.file.getvalue() == "" and threading.active_count() == before


def test_outside_the_main_thread_the_handlers_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with stoppable(Console(file=io.StringIO())) as stop:
            seen.extend([signal.getsignal(signal.SIGINT), stop.asked])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, False]
