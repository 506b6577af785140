"""Studies that were killed, damaged, finished or disturbed, and go on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import pytest

from harness.config import (
    Ablation,
    ReplicateSettings,
    SearchSettings,
    Space,
    apply_overrides,
    dump_yaml,
    read_section,
    validate_section,
)
from harness.engine.checkpoint import load_header
from harness.errors import StudyError
from harness.run import Resources, run_ablation, run_replicates, run_search
from harness.run.inprocess import run_inprocess
from harness.run.launch import failed_text
from harness.run.study import Displayed
from harness.run.worker import TrialRun
from harness.search import Search
from harness.store import Record, StudyFolder

HERE = Resources("inprocess")
SECONDS = {"seconds", "setup_seconds", "train_seconds", "val_seconds"}
LR = {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-1, "log": True}}

#: a search in a process that kills itself, as `kill -9` does, at a call of a function
DYING = """
import io, os, signal
from importlib import import_module
from pathlib import Path
from rich.console import Console
from harness.config import Space, read_section
from harness.run import Resources, run_search
from harness.store import StudyFolder

def die():
    os.kill(os.getpid(), signal.SIGKILL)

module, _, names = where.partition(":")
*owners, name = names.split(".")
owner = import_module(module)
for one in owners:
    owner = getattr(owner, one)
real, calls = getattr(owner, name), [0]

def dying(*arguments, **named):
    calls[0] += 1
    if calls[0] == nth and when == "before":
        die()
    answer = real(*arguments, **named)
    if calls[0] == nth:
        die()
    return answer

setattr(owner, name, dying)
run_search(
    StudyFolder(Path(folder)), read_section(Space, Path(space)), Resources("inprocess"), Console(file=io.StringIO()),
    seed=0,
)
"""


def journals(folder: StudyFolder) -> list[list[dict]]:
    return [[row.model_dump(exclude=SECONDS) for row in journal.read()] for journal in (folder.trials, folder.epochs)]


def by_trial(folder: StudyFolder) -> dict[str, dict]:
    return {row["trial"]: row for row in journals(folder)[0]}


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


@pytest.fixture
def whole(results) -> StudyFolder:
    """The folder of the study that is left alone."""
    return StudyFolder(results / "whole")


def with_strategy(space, strategy: str, **search):
    return space.model_copy(update={"search": apply_overrides(space.search, {"strategy": strategy} | search)})


@pytest.fixture
def killed_at(forks, study, tmp_path) -> Callable[..., None]:
    """Run a search in a process that dies at a call."""

    def run(where: str, nth: int, when: str, space: Space) -> None:
        path, said = tmp_path / "space.yaml", tmp_path / "said"
        path.write_text(dump_yaml(space.model_dump(mode="json")))
        names = {"where": where, "nth": nth, "when": when, "folder": str(study.path), "space": str(path)}
        process = forks.start(DYING, said, **names)
        assert process.wait() == -signal.SIGKILL, said.read_text()

    return run


@pytest.mark.parametrize(
    ("where", "nth", "when", "strategy"),
    [
        ("harness.search.proposals:Proposals.start", 2, "after", "random_asha"),
        ("harness.store:Record.add_epoch", 2, "before", "random_promote"),
        ("harness.store:Record.add_epoch", 5, "after", "random_promote"),
        ("harness.store:Record.end", 1, "after", "random_asha"),
        ("harness.search.proposals:Proposals.tell", 2, "after", "random_promote"),
        ("os:replace", 12, "before", "random_asha"),
    ],
    ids=[
        "a trial that only Optuna knows",
        "an epoch that is in no journal",
        "an epoch that Optuna does not know",
        "an end that Optuna does not know",
        "a best that is not written",
        "half a file",
    ],
)
def test_a_search_whose_driver_is_killed_goes_on_to_the_journals_of_one_that_was_left_alone(
    study, whole, tiny_space, console, killed_at, where, nth, when, strategy
):
    space = with_strategy(tiny_space(LR, trials=4), strategy)
    killed_at(where, nth, when, space)
    run_search(study, space, HERE, console, seed=0, resume=True)
    run_search(whole, space, HERE, console, seed=0)
    assert journals(study) == journals(whole)
    assert study.best.read_text() == whole.best.read_text().replace("study whole", "study hunt")


@pytest.mark.parametrize("number", [0, 1, 3], ids=["the first row", "a row in the middle", "the last row"])
def test_a_row_that_optuna_alone_remembers_is_written_again_from_the_epochs(
    study, tiny_space, console, number, monkeypatch
):
    space = tiny_space(trials=4)
    run_search(study, space, HERE, console, seed=0)
    before = by_trial(study)
    lines = study.trials.path.read_bytes().splitlines(keepends=True)
    study.trials.path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
    monkeypatch.setattr(TrialRun, "next_row", lambda run: pytest.fail("a trial that ended is trained again"))
    search = run_search(study, space, HERE, console, seed=0, resume=True)
    after = by_trial(study)
    lost = json.loads(lines[number])["trial"]
    if after[lost]["outcome"] == "failed":
        assert after[lost]["error"] == "its row was lost, and with it the cause"
        before[lost]["error"] = after[lost]["error"]
    assert after == before and len(search.record.ended) == 4


def test_a_row_of_a_replicate_that_was_lost_is_written_again_without_training(study, tiny, console, monkeypatch):
    run_replicates(study, tiny(training__epochs=1), range(3), HERE, console)
    before = by_trial(study)
    lines = study.trials.path.read_bytes().splitlines(keepends=True)
    study.trials.path.write_bytes(lines[0] + lines[2])
    monkeypatch.setattr(TrialRun, "next_row", lambda run: pytest.fail("a trial that ended is trained again"))
    run_replicates(study, tiny(training__epochs=1), range(3), HERE, console, resume=True)
    assert by_trial(study) == before and len(study.trials.read()) == 3


class Killed(BaseException):
    """What ends this process's search, as a signal would."""


class Kills:
    """A display that raises after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def started(self, trial) -> None:
        pass

    def ended(self, trial_id, row) -> None:
        pass

    def epoch(self, row) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("left_of_it", ["the checkpoint before", "nothing"])
def test_a_promoted_trial_whose_checkpoint_is_older_than_its_last_row_does_not_wait_again_at_its_rung(
    folder, whole, tiny_space, left_of_it
):
    # one trial in three goes on after the first epoch of three: with four, after the fourth epoch
    space = with_strategy(tiny_space(LR, trials=4), "random_promote", default_first=False)
    with pytest.raises(Killed):
        run_inprocess(Displayed(Search(folder, space, seed=0), Kills(5)))
    promoted = next(run for run in Record(folder).epochs.values() if len(run) == 2)[0].trial
    run = folder.run(promoted)
    run.last.unlink()
    if left_of_it == "the checkpoint before":
        run.previous.rename(run.last)
        assert load_header(run.last)["rows"][-1]["epoch"] == 1
    else:
        run.previous.unlink()
    run_inprocess(Search(folder, space, seed=0))
    whole.path.mkdir(parents=True)
    run_inprocess(Search(whole, space, seed=0))
    assert journals(folder) == journals(whole)


def test_a_search_that_is_extended_is_the_one_that_was_asked_for_so_many_trials_at_once(
    study, whole, tiny_space, console
):
    run_search(study, tiny_space(trials=3), HERE, console, seed=0)
    run_search(study, tiny_space(trials=5), HERE, console, seed=0, resume=True)
    run_search(whole, tiny_space(trials=5), HERE, console, seed=0)
    assert journals(study) == journals(whole)
    assert read_section(SearchSettings, study.settings).space.search.trials == 5


def test_replicates_that_are_extended_are_those_that_were_asked_for_at_once(study, results, tiny, console):
    # the name is that of the arm
    whole = StudyFolder(results / "elsewhere" / "hunt")
    run_replicates(study, tiny(training__epochs=1), range(1), HERE, console)
    run_replicates(study, tiny(training__epochs=1), range(3), HERE, console, resume=True)
    run_replicates(whole, tiny(training__epochs=1), range(3), HERE, console)
    assert journals(study) == journals(whole)
    assert read_section(ReplicateSettings, study.settings).arms.keys() == {"hunt"}


def test_an_ablation_that_is_extended_gets_further_seeds_of_each_arm_and_keeps_those_it_has(study, tiny, console):
    ablation = validate_section(
        Ablation,
        {
            "experiment": tiny(training__epochs=1).model_dump(mode="json"),
            "arms": {"base": {}, "fast": {"set": {"optimiser.lr": 0.01}}},
            "design": {"kind": "arms", "baseline": "base", "arms": ["fast"]},
            "scale": {"smoke": {"seeds": 1}},
        },
        "two",
    )
    run_ablation(study, ablation, "smoke", None, HERE, console)
    first = by_trial(study)
    run_ablation(study, ablation, "smoke", 2, HERE, console, resume=True)
    then = by_trial(study)
    assert {trial: then[trial]["score"] for trial in first} == {trial: first[trial]["score"] for trial in first}
    assert sorted((row["picked"]["arm"], row["seed"]) for row in then.values()) == [
        ("base", 0), ("base", 1), ("fast", 0), ("fast", 1)
    ]  # fmt: skip
    asked = [session["asked"] for session in json.loads(study.provenance.read_text())["sessions"]]
    assert asked == [{"seeds": 1, "race": None}, {"seeds": 2, "race": None}]


def test_what_may_differ_at_each_start_is_kept_for_each(study, tiny_space, console, monkeypatch):
    run_search(study, tiny_space(trials=1), HERE, console, seed=0)
    monkeypatch.setattr("harness.run.launch.device_name", lambda: "another device")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    now = Resources("inprocess", cpus_per_trial=2.0)
    budgets = {"time_budget": 3600.0, "disk_budget": 1e9}
    run_search(study, tiny_space(trials=2), now, console, seed=0, resume=True, **budgets)
    about = json.loads(study.provenance.read_text())
    first, second = about["sessions"]
    assert first["started"] == about["created"] <= second["started"]
    assert first["resources"] == about["resources"] and first["changed"] == {}
    assert first["asked"] == {"trials": 1, "time_budget_s": None, "disk_budget_bytes": None}
    assert second["asked"] == {"trials": 2, "time_budget_s": 3600.0, "disk_budget_bytes": 1e9}
    assert second["resources"]["cpus_per_trial"] == 2.0
    assert second["changed"] == {"device": f"{about['device']} -> another device"}


def test_a_start_that_is_refused_is_not_kept(study, tiny_space, console):
    run_search(study, tiny_space(trials=1), HERE, console, seed=0)
    before = study.provenance.read_bytes()
    with pytest.raises(StudyError, match="seed: 0 -> 1"):
        run_search(study, tiny_space(trials=1), HERE, console, seed=1, resume=True)
    assert study.provenance.read_bytes() == before


def test_what_failed_before_is_said_and_what_to_do(study, tiny, tiny_space, console):
    run_search(study, tiny_space(trials=4), HERE, console, seed=0)
    failed = [row.number for row in study.trials.read() if row.outcome == "failed"]
    assert failed
    run_search(study, tiny_space(trials=4), HERE, console, seed=0, resume=True)
    said = console.file.getvalue()
    assert f"{len(failed)} failed trials stay as they are ({', '.join(map(str, failed))}): --resume trains none" in said
    assert f"`harness rerun {study.path} {failed[0]}` runs one alone" in said
    assert said.count("--resume trains none") == 1


def test_nothing_is_said_of_failures_where_there_are_none(folder):
    assert failed_text(folder) is None


def test_a_clock_that_jumps_back_a_day_in_the_middle_changes_nothing(study, whole, tiny_space, console, monkeypatch):
    space = with_strategy(tiny_space(LR, trials=4), "random_promote")
    run_search(whole, space, HERE, console, seed=0, time_budget=3600.0)
    next_row, calls, now = TrialRun.next_row, iter(range(100)), time.time

    def after_a_jump(run):
        if next(calls) == 3:
            monkeypatch.setattr(time, "time", lambda: now() - 86400)
        return next_row(run)

    monkeypatch.setattr(TrialRun, "next_row", after_a_jump)
    search = run_search(study, space, HERE, console, seed=0, time_budget=3600.0)
    assert next(calls) > 3 and time.time() < now() - 80000
    assert journals(study) == journals(whole) and not search.out_of_time()
