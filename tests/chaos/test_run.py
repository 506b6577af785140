"""Faults come in a random order that leaves none out, but those for which this machine lacks something."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from harness.chaos import Plan, Report, Verdict, report_table, run
from harness.chaos.driver import Command, Driver
from harness.chaos.faults import FAULTS, Fault
from harness.cli.chaos import chaos as chaos_command
from harness.errors import StudyError, TrainingError


def fault(name: str, ready: list[bool] | None = None) -> Fault:
    """A fault that finds nothing to strike until the list has something."""
    return Fault(name, lambda *_: ready is None or bool(ready))


def strikes(faults: run.Faults, count: int) -> Counter[str]:
    struck = (faults.strike(None, None) for _ in range(count))
    return Counter(one.name for one in struck if one is not None)


def test_every_fault_comes_once_before_any_comes_twice_and_one_that_finds_nothing_comes_later() -> None:
    ready: list[bool] = []
    faults = run.Faults(random.Random(0), (fault("a"), fault("b"), fault("c"), fault("late", ready)))
    assert strikes(faults, 5) == {"a": 1, "b": 1, "c": 1}
    ready.append(True)
    assert faults.strike(None, None).name == "late"
    assert strikes(faults, 4) == {"a": 1, "b": 1, "c": 1, "late": 1}


def test_a_fault_that_never_finds_anything_does_not_keep_the_others_from_coming_again() -> None:
    faults = run.Faults(random.Random(0), (fault("a"), fault("b"), fault("never", [])))
    struck = strikes(faults, 10 * run._IN_VAIN)
    assert struck["never"] == 0 and min(struck["a"], struck["b"]) >= 8 and abs(struck["a"] - struck["b"]) <= 1


def test_what_a_machine_or_a_plan_lacks_leaves_faults_out_with_the_reason() -> None:
    plan = Plan(Path("space.yaml"), (), 60.0, 0)
    assert run._missing(plan, "needs root on Linux") == {"nodes": "needs --nodes 2", "disk": "needs root on Linux"}
    here = Plan(Path("space.yaml"), (), 60.0, 0, executor="inprocess")
    assert run._missing(here, None) == {"workers": "needs --executor ray", "nodes": "needs --nodes 2"}
    assert run._missing(Plan(Path("space.yaml"), (), 60.0, 0, nodes=2), None) == {}
    assert Counter(one.needs for one in FAULTS) == {"": 9, "workers": 2, "nodes": 1, "disk": 1}


def test_the_table_has_the_faults_that_came_those_left_out_and_what_they_changed() -> None:
    verdict = Verdict(finished=16, lost=0, doubled=0, changed=0, best_equal=True)
    faults = Counter({"worker suspended": 2, "Ctrl-C": 1})
    report = Report(7, faults, {"disk full": "needs root on Linux"}, [verdict, verdict])
    console = Console(file=io.StringIO(), width=100)
    console.print(report_table(report))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    shown = {row[0]: row[1] for row in rows if len(row) == 2}
    assert shown["worker suspended"] == "2" and shown["faults injected"] == "3"
    assert shown["disk full"] == "not injected (needs root on Linux)"
    assert shown["trials finished"] == "32" and shown["best equal"] == "yes"


#: in the place of a search: ends after a moment with the code that its space file holds
SEARCH = """
import pathlib, sys, time
time.sleep(0.2)
print("last words")
sys.exit(int(pathlib.Path(sys.argv[1]).read_text()))
"""


@pytest.fixture
def space(tmp_path, monkeypatch) -> Path:
    """A space whose search is over at once."""

    def started(command: Command) -> Driver:
        with open(command.home / "driver.log", "ab") as log:
            return Driver(subprocess.Popen([sys.executable, "-c", SEARCH, str(command.space)], stdout=log))

    monkeypatch.setattr(Command, "start", started)
    monkeypatch.setattr(run, "SPACING", 0.1)
    (tmp_path / "home").mkdir()
    (tmp_path / "space").write_text("0")
    return tmp_path / "space"


def plan_of(space: Path, seconds: float = 0.0) -> Plan:
    return Plan(space, (), seconds, 0, executor="inprocess")


def test_searches_are_disturbed_until_the_time_is_over_each_in_a_folder_of_its_own(space, monkeypatch) -> None:
    def kill(command: Command, driver: Driver, rng: random.Random) -> bool:
        driver.kill()
        return True

    home, said = space.parent / "home", []
    monkeypatch.setattr(run, "FAULTS", (Fault("killed", kill), Fault("worker killed", kill, "workers")))
    report = run.chaos(home, plan_of(space, 2.0), said.append)
    assert report.good() and report.faults["killed"] == said.count("killed") > 0
    assert report.left_out == {"worker killed": "needs --executor ray"}
    rounds = [f"round-{number}" for number in range(len(report.verdicts))]
    assert sorted(path.name for path in home.iterdir()) == ["alone", *sorted(rounds)]
    assert not [path for path in home.rglob("*") if path.is_mount()]


def test_a_search_that_does_not_come_to_its_end_is_named_with_its_code_and_its_last_words(space) -> None:
    space.write_text("3")
    with pytest.raises(
        TrainingError, match=r"exit code 3 instead of 0, its last words: last words; all of them are in"
    ):
        run.chaos(space.parent / "home", plan_of(space), lambda _: None)


def test_a_search_that_writes_no_row_any_more_is_a_failure(space, monkeypatch) -> None:
    monkeypatch.setattr(run, "_NEWS", 0.01)
    monkeypatch.setattr(run, "STALLED", 0.0)
    with pytest.raises(TrainingError, match=r"a search wrote no row for 0 s; what it said is in .+driver\.log"):
        run.chaos(space.parent / "home", plan_of(space), lambda _: None)


def test_no_driver_outlives_a_chaos_that_fails(space, monkeypatch) -> None:
    drivers = []

    def fail(command: Command, driver: Driver, rng: random.Random) -> bool:
        drivers.append(driver)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "FAULTS", (Fault("fails", fail),))
    with pytest.raises(KeyboardInterrupt):
        run.chaos(space.parent / "home", plan_of(space, 60.0), lambda _: None)
    assert not drivers[0].runs() and drivers[0].process.returncode == -signal.SIGKILL
    assert not [path for path in (space.parent / "home").rglob("*") if path.is_mount()]


def test_a_cluster_without_ray_is_refused() -> None:
    with pytest.raises(StudyError, match="--nodes 2: a cluster is Ray's; leave --executor inprocess or --nodes out"):
        chaos_command(Path("space.yaml"), executor="inprocess", nodes=2)
