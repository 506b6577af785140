"""No epoch beyond a budget: of time, judged by a trial's own last epoch; of device hours, counted from the journal."""

from __future__ import annotations

import time

import pytest

from harness.ablate import Replicates
from harness.run import Resources, run_replicates, run_search
from harness.run.budget import Budgeted
from harness.run.worker import TrialRun
from harness.search import Search
from harness.store import EpochRow, Record, StudyFolder

LR = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2, 1e-1, 1e-4]}}
HERE = Resources("inprocess")


def epoch(trial: str, number: int, seconds: float, score: float = 0.5, done: bool = False) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=number, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=0.75 * seconds, val_seconds=0.25 * seconds, images=6, peak_memory_mb=None, done=done,
    )  # fmt: skip


def with_strategy(space, strategy, **search):
    return space.model_copy(update={"search": space.search.model_copy(update={"strategy": strategy} | search)})


@pytest.fixture
def study(results) -> StudyFolder:
    return StudyFolder(results / "hunt")


@pytest.fixture
def slow(monkeypatch):
    """Epochs that say they took a minute."""
    next_row = TrialRun.next_row

    def a_minute(run):
        row = next_row(run)
        if isinstance(row, EpochRow):
            return row.model_copy(update={"train_seconds": 50.0, "val_seconds": 10.0})
        return row

    monkeypatch.setattr(TrialRun, "next_row", a_minute)


# ---- time ------------------------------------------------------------------------------------------------------


def test_what_is_stored_once_is_paid_for_and_no_part_of_what_the_next_epoch_will_take(tiny_space, folder):
    search = Search(folder, tiny_space(LR), seed=0, deadline=time.monotonic() + 1000)
    study = Budgeted(search, 1.0, Resources("ray", gpus_per_trial=1.0))
    trial = study.next_trial()
    row = epoch(trial.id, 1, 300.0).model_copy(update={"setup_seconds": 1500.0})
    assert study.on_epoch(row) and search._seconds_of_next() == 300
    assert study.used == 0.5
    assert study.on_end(trial.id, "broken").seconds == 1800


def test_an_epoch_that_would_end_too_late_by_the_last_one_is_not_begun(tiny_space, folder):
    search = Search(folder, tiny_space(LR), seed=0, deadline=time.monotonic() + 1000)
    quick, slow = search.next_trial(), search.next_trial()
    assert search.on_epoch(epoch(quick.id, 1, 300.0))
    assert search.on_epoch(epoch(slow.id, 1, 500.0)) and not search.on_epoch(epoch(slow.id, 2, 1500.0))
    assert search.on_end(slow.id) is None
    assert search.on_epoch(epoch(quick.id, 2, 300.0)) and not search.out_of_time()


def test_a_new_trial_is_judged_by_the_median_epoch_and_then_the_search_ends(tiny_space, folder):
    search = Search(folder, tiny_space(LR), seed=0, deadline=time.monotonic() + 1000)
    trial = search.next_trial()
    search.on_epoch(epoch(trial.id, 1, 10.0))
    assert search.next_trial() is not None
    for number, seconds in ((2, 1500.0), (3, 1500.0)):
        search.on_epoch(epoch(trial.id, number, seconds, done=number == 3))
    search.on_end(trial.id)
    # 10, 1500 and 1500 seconds: half of all epochs would end too late
    assert search.next_trial() is None and not search.out_of_time()
    (other,) = search.running
    search.on_end(other)
    assert search.next_trial() is None


def test_a_paused_trial_is_judged_by_its_own_last_epoch_and_counts_as_stopped(tiny_space, folder):
    space = with_strategy(tiny_space(LR, trials=3), "random_promote", default_first=False)
    search = Search(folder, space, seed=0, deadline=time.monotonic() + 1000)
    # the best is slow, the others are not
    for score, seconds in ((0.1, 1.0), (0.2, 1.0), (0.9, 1500.0)):
        trial = search.next_trial()
        assert not search.on_epoch(epoch(trial.id, 1, seconds, score)) and search.on_end(trial.id) is None
    assert search.next_trial() is None
    assert [row.outcome for row in folder.trials.read()] == ["stopped"] * 3
    assert f"trial 2 ({trial.id})" in folder.best.read_text()
    assert Search(folder, space, seed=0).next_trial().id == trial.id


def test_a_search_stops_before_its_time_is_over_and_says_how_to_go_on(study, tiny_space, console, slow):
    search = run_search(study, tiny_space(LR, trials=2), HERE, console, seed=0, time_budget=50.0)
    assert [row.epoch for row in study.epochs.read()] == [1]
    assert not search.out_of_time()
    assert "--time-budget: no epoch was started that would have ended too late; --resume goes on" in said(console)
    run_search(study, tiny_space(LR, trials=2), HERE, console, seed=0, resume=True)
    assert {row.number for row in study.trials.read()} == {0, 1}


# ---- device hours ----------------------------------------------------------------------------------------------


def said(console) -> str:
    return console.file.getvalue()


def three_trials(folder, tiny):
    return Replicates(folder, {"arm": tiny()}, range(3))


@pytest.mark.parametrize(
    ("resources", "unit", "per_trial"),
    [
        (Resources("ray", gpus_per_trial=0.5, cpus_per_trial=4), "GPU-hours", 0.5),
        (Resources("ray", gpus_per_trial=0.0, cpus_per_trial=4), "CPU-core-hours", 4),
    ],
)
def test_hours_are_those_of_the_gpus_of_a_trial_or_else_of_its_cores(folder, tiny, resources, unit, per_trial):
    study = Budgeted(three_trials(folder, tiny), 10.0, resources)
    trial = study.next_trial()
    study.on_epoch(epoch(trial.id, 1, 3600.0))
    assert (study.used, study.unit) == (per_trial, unit)


def test_once_the_hours_are_used_no_epoch_and_no_trial_begins_and_a_resumed_study_counts_on(folder, tiny):
    study = Budgeted(three_trials(folder, tiny), 1.0, Resources("ray", gpus_per_trial=1.0))
    first, second = study.next_trial(), study.next_trial()
    assert study.on_epoch(epoch(first.id, 1, 1000.0)) and study.on_epoch(epoch(second.id, 1, 1000.0))
    assert study.on_epoch(epoch(first.id, 2, 1000.0))
    assert not study.on_epoch(epoch(second.id, 2, 1000.0)) and study.on_end(second.id) is None
    assert not study.on_epoch(epoch(first.id, 3, 1000.0, done=True)) and study.on_end(first.id).outcome == "complete"
    assert study.next_trial() is None and not study.waits()
    assert study.said(3) == (
        "--compute-hours 1 is used up (1.39 GPU-hours, 1 of 3 trials ended); --resume with a higher number goes on"
    )
    again = Budgeted(three_trials(folder, tiny), 1.0, Resources("ray", gpus_per_trial=1.0))
    assert again.used == pytest.approx(5000 / 3600) and again.next_trial() is None
    more = Budgeted(three_trials(folder, tiny), 2.0, Resources("ray", gpus_per_trial=1.0))
    assert more.next_trial().id == second.id
    # the row of its last checkpoint again counts once
    more.on_epoch(epoch(second.id, 2, 1000.0))
    assert more.used == pytest.approx(5000 / 3600)


def test_a_study_that_ends_within_its_hours_says_nothing(folder, tiny):
    study = Budgeted(Replicates(folder, {"arm": tiny()}, range(1)), 0.25, Resources("ray", gpus_per_trial=1.0))
    trial = study.next_trial()
    study.on_epoch(epoch(trial.id, 1, 900.0, done=True))
    study.on_end(trial.id)
    assert study.used == 0.25 and study.said(1) is None


def test_a_search_out_of_hours_ranks_what_was_paused_and_goes_on_with_more(study, tiny_space, console, slow):
    space = with_strategy(tiny_space(LR, trials=4), "random_promote", default_first=False)
    run_search(study, space, HERE, console, seed=0, compute_hours=2.5 / 60)
    rows = Record(study).ended.values()
    assert [row.epochs for row in rows] == [1, 1, 1] and {row.outcome for row in rows} == {"stopped"}
    assert "--compute-hours 0.0416667 is used up (0.05 CPU-core-hours" in said(console)
    run_search(study, space, HERE, console, seed=0, compute_hours=1.0, resume=True)
    ended = Record(study).ended.values()
    assert len(ended) == 4 and "complete" in {row.outcome for row in ended}
    assert "by the 3 epochs so far" in said(console) and "--compute-hours allows all of it" in said(console)


def test_a_training_out_of_hours_goes_on_where_it_stopped(results, tiny, console, slow):
    folder = StudyFolder(results / "final")
    run_replicates(folder, tiny(), range(2), HERE, console, compute_hours=1.5 / 60)
    assert [row.epoch for row in folder.epochs.read()] == [1, 2] and folder.trials.read() == []
    run_replicates(folder, tiny(), range(2), HERE, console, resume=True)
    assert [(row.outcome, row.epochs) for row in folder.trials.read()] == [("complete", 3)] * 2
