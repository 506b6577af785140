"""The best trials of a real, tiny search trained again: fresh seeds, resuming, failures, trials cut off by the time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.config import ReplicateSettings, read_section
from harness.errors import StudyError
from harness.run import Resources, run_search
from harness.run.confirm import goes_on, run_confirmation, searched_with
from harness.run.folder_view import FolderView
from harness.run.plan import read_asked
from harness.run.worker import TrialRun
from harness.search.confirmation import is_confirmed, read_confirmation
from harness.store import Failure, StudyFolder

LR = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2, 1e-1]}}
HERE = Resources("inprocess")


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


@pytest.fixture
def searched(study, tiny, tiny_space, console) -> StudyFolder:
    """A finished search of two trials of one epoch."""
    space = tiny_space(LR, tiny(training__epochs=1), trials=2)
    run_search(study, space, HERE, console, seed=0)
    return study


def confirm_folder(study: StudyFolder, name: str = "confirm") -> StudyFolder:
    return StudyFolder(study.path / name)


def test_the_best_are_trained_again_with_seeds_that_the_search_did_not_have(searched, console):
    run = run_confirmation(searched, HERE, console, seeds=2, top=5)
    # fewer trials than asked for
    assert list(run.arms) == ["rank-1", "rank-2"]
    folder = confirm_folder(searched)
    settings = read_section(ReplicateSettings, folder.settings)
    assert (settings.first_seed, settings.seeds) == (1000, 2)
    rows = folder.trials.read()
    assert [(row.seed, row.picked["arm"]) for row in rows] == [
        (1000, "rank-1"), (1000, "rank-2"), (1001, "rank-1"), (1001, "rank-2")
    ]  # fmt: skip
    by_arm = {row.picked["arm"]: row.trial.partition("-s")[0] for row in rows}
    ranking = sorted(searched.trials.read(), key=lambda row: -row.score)
    assert [by_arm[f"rank-{i}"] for i in (1, 2)] == [row.trial.partition("-s")[0] for row in ranking]
    assert len({row.score for row in (*rows, *ranking)}) == 6
    confirmation = read_confirmation(searched)
    assert is_confirmed(confirmation) and {t.row.trial for t in confirmation.trials} == {r.trial for r in ranking}
    said = console.file.getvalue()
    assert "4 trials, 4 epochs" in said and "(by the 2 epochs of these trials in the search)" in said


def test_it_is_watched_as_what_it_is(searched, console):
    run_confirmation(searched, HERE, console, seeds=2, top=1)
    folder = confirm_folder(searched)
    plan = read_asked(folder).plan
    assert (plan.kind, plan.planned) == ("confirmation", 2)
    assert [read_asked(folder).trial(row.trial)[0] for row in folder.trials.read()] == [0, 1]
    assert FolderView(folder).look().status == "finished"


def test_one_that_was_cut_short_goes_on_by_resume_and_is_not_begun_twice(searched, console, monkeypatch):
    next_row, calls = TrialRun.next_row, iter(range(100))

    def killed(run):
        if next(calls) == 1:
            raise SystemExit
        return next_row(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", killed)
        with pytest.raises(SystemExit):
            run_confirmation(searched, HERE, console, seeds=3, top=1)
    assert len(confirm_folder(searched).trials.read()) == 1 and goes_on(searched, top=2)
    with pytest.raises(StudyError, match="a confirmation was begun and is not finished; go on with it by --resume"):
        run_confirmation(searched, HERE, console, seeds=3, top=1)
    # those that it began with, whatever --top says
    run_confirmation(searched, HERE, console, top=2, resume=True)
    assert [row.seed for row in confirm_folder(searched).trials.read()] == [1000, 1001, 1002]
    assert read_confirmation(searched).finished


def test_the_same_trials_again_are_refused_and_further_seeds_are_added(searched, console):
    run_confirmation(searched, HERE, console, seeds=1, top=1)
    with pytest.raises(StudyError, match="the same trials were trained again already; .* --resume --seeds 2 trains"):
        run_confirmation(searched, HERE, console, seeds=1, top=1)
    run_confirmation(searched, HERE, console, seeds=2, resume=True)
    assert [row.seed for row in confirm_folder(searched).trials.read()] == [1000, 1001]
    assert goes_on(searched, top=1) and not goes_on(searched, top=2)
    # other trials: another confirmation, other seeds
    run_confirmation(searched, HERE, console, seeds=1, top=2)
    assert [row.seed for row in confirm_folder(searched, "confirm-2").trials.read()] == [2000, 2000]


def test_there_is_nothing_to_resume_where_nothing_was_begun(searched, console):
    assert not goes_on(searched, top=5)
    with pytest.raises(StudyError, match="study 'hunt' has no confirmation yet; leave --resume out to begin it"):
        run_confirmation(searched, HERE, console, resume=True)


def test_a_training_that_fails_is_counted_and_the_rest_go_on(searched, console, monkeypatch):
    next_row, calls = TrialRun.next_row, iter(range(100))
    monkeypatch.setattr(TrialRun, "next_row", lambda run: Failure("boom") if next(calls) == 0 else next_row(run))
    run_confirmation(searched, HERE, console, seeds=3, top=2)
    confirmation = read_confirmation(searched)
    failed = confirmation.first
    assert confirmation.finished and failed.failed == {1000: "boom"} and len(failed.scores) == 2
    # without an interval it comes after the other one
    assert confirmation.trials[1] is failed


def test_trials_for_which_the_time_was_over_are_trained_to_their_end(study, tiny_space, console, monkeypatch):
    next_row = TrialRun.next_row

    def a_minute(run):
        return next_row(run).model_copy(update={"train_seconds": 60.0})

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "next_row", a_minute)
        run_search(study, tiny_space(LR, trials=2), HERE, console, seed=0, time_budget=50.0)
    (row,) = study.trials.read()
    assert (row.outcome, row.epochs) == ("stopped", 1)
    run_confirmation(study, HERE, console, seeds=1)
    (trial,) = read_confirmation(study).trials
    assert trial.was_stopped and trial.runs[1000].epochs == 3
    first = [row.score for row in confirm_folder(study).epochs.read() if row.epoch <= 1]
    assert trial.alike == {1000: max(first)}
    # the search goes on all the same, and the confirmation stays what it was
    run_search(study, tiny_space(LR, trials=2), HERE, console, seed=0, resume=True)
    assert read_confirmation(study).moved_on


def test_device_hours_end_a_confirmation_too(searched, console, monkeypatch):
    next_row = TrialRun.next_row
    monkeypatch.setattr(
        TrialRun, "next_row", lambda run: next_row(run).model_copy(update={"train_seconds": 3600.0, "val_seconds": 0.0})
    )
    run_confirmation(searched, HERE, console, seeds=3, top=1, compute_hours=2.0)
    assert len(confirm_folder(searched).trials.read()) == 2 and not read_confirmation(searched).finished
    assert "--compute-hours 2 is used up (2 CPU-core-hours, 2 of 3 trials ended)" in console.file.getvalue()


def test_what_each_trial_gets_is_what_it_had_in_the_search(searched):
    assert searched_with(searched) == replace(HERE, gpus_per_trial=0.0)
    about = json.loads(searched.provenance.read_text())
    about["sessions"][-1]["resources"] |= {"gpus_per_trial": 0.5, "cpus_per_trial": 4.0, "upload": "file:///there"}
    searched.provenance.write_text(json.dumps(about))
    assert searched_with(searched) == Resources("inprocess", 0.5, 4.0)
    about["sessions"][-1]["resources"] = {"gpus_per_trial": "many"}
    searched.provenance.write_text(json.dumps(about))
    with pytest.raises(StudyError, match="provenance.json: damaged .*restore it, or remove it"):
        searched_with(searched)
    searched.provenance.unlink()
    assert searched_with(searched) == Resources()
