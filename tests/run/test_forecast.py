"""The line before a study: epochs under the rungs, hours by what is known, what a budget will end."""

from __future__ import annotations

import math

import pytest

from harness.ablate import Replicates
from harness.config.space import SearchConfig
from harness.run import Resources, launch, run_search
from harness.run.forecast import Limit, Pace, forecast, limits_of, measured_pace, recorded_pace
from harness.run.measure import Measured
from harness.run.plan import Plan
from harness.run.progress import tally_of
from harness.run.snapshot import Tally
from harness.search import Search
from harness.store import EpochRow, StudyFolder

LR = {"lr": {"kind": "choice", "field": "optimiser.lr", "choices": [1e-3, 1e-2, 1e-1, 1e-4]}}


def search_of(strategy: str, trials: int = 32, epochs: int = 9) -> Tally:
    config = SearchConfig(trials=trials, strategy=strategy, grace_epochs=1, reduction_factor=3)
    return Tally(Plan("hunt", "search", trials, epochs, False, config))


def epoch(trial: str, number: int, seconds: float = 10.0) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=number, score=0.5, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=seconds, val_seconds=0.0, images=6, peak_memory_mb=None, done=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [
        # rungs after 1 and 3 epochs: 32 + 10 that go on x 2 + 3 that go on x 6
        ("promote", 32 + 20 + 18),
        # 32 + 32/3 x 2 + 32/9 x 6
        ("asha", 32 + 64 / 3 + 64 / 3),
        ("random", 288),
    ],
)
def test_a_search_is_forecast_by_its_rungs(strategy, epochs):
    assert search_of(strategy).epochs_left() == pytest.approx(epochs)


def test_what_is_not_known_before_the_first_epochs_is_not_made_up():
    line = forecast(search_of("promote"), 2, None, [Limit("--time-budget", 1.0)])
    assert line == (
        "32 trials, about 70 of 288 epochs on 2 workers; how long they take is known after the first; "
        "--time-budget may end it before"
    )


def test_with_a_pace_there_are_hours_and_the_share_that_a_budget_allows():
    tally, pace = search_of("random"), Pace(100.0, "by the moon")
    limits = limits_of(tally, 2, pace, 3600.0, 2 * 28800.0)
    # 288 epochs of 100 seconds on two workers: 14400 seconds, of which an hour is a quarter
    assert forecast(tally, 2, pace, limits) == (
        "32 trials, 288 epochs, about 4 h on 2 workers (by the moon); --time-budget will end it after about "
        "25 %; --compute-hours allows all of it"
    )
    assert limits == [Limit("--time-budget", pytest.approx(0.25)), Limit("--compute-hours", pytest.approx(2.0))]


def test_one_worker_is_one_worker_and_a_race_is_at_most():
    tally = Tally(Plan("race", "ablation", 6, 4, True))
    assert forecast(tally, 1, Pace(60.0, "x"), []) == "6 trials, at most 24 epochs, about 24 min on 1 worker (x)"


def test_a_finished_study_and_one_of_unknown_length_have_no_forecast(tiny, folder):
    assert forecast(Tally(Plan("old", "training", None, 3)), 1, None) == ""
    study = Replicates(folder, {"arm": tiny()}, range(1))
    trial = study.next_trial()
    study.on_epoch(epoch(trial.id, 3).model_copy(update={"done": True}))
    study.on_end(trial.id)
    assert forecast(tally_of(study, 1, 3), 1, None) == ""


def test_a_resumed_study_is_forecast_from_where_it_stands(tiny, folder):
    study = Replicates(folder, {"arm": tiny()}, range(3))
    first, second = study.next_trial(), study.next_trial()
    for number in (1, 2, 3):
        study.on_epoch(epoch(first.id, number).model_copy(update={"done": number == 3}))
    study.on_end(first.id)
    study.on_epoch(epoch(second.id, 1))
    tally = tally_of(Replicates(folder, {"arm": tiny()}, range(3)), 3, 3)
    # two of the second and three of the third
    assert forecast(tally, 1, None).startswith("3 trials, 1 ended: 5 epochs left on 1 worker;")


def test_trials_that_wait_at_a_rung_when_a_search_is_resumed_are_no_trials_under_way(tiny_space, folder):
    space = tiny_space(LR, trials=3)
    space = space.model_copy(update={"search": space.search.model_copy(update={"strategy": "random_promote"})})
    search = Search(folder, space, seed=0)
    for _ in range(2):
        trial = search.next_trial()
        search.on_epoch(epoch(trial.id, 1))
        search.on_end(trial.id)
    # one epoch of the third, and the two last of the best of the three
    assert tally_of(Search(folder, space, seed=0), 3, 3).epochs_left() == 3


def test_the_measured_pace_is_the_mean_of_what_fits_times_the_training_frames(tiny):
    found = [Measured(1, 100.0, None), Measured(1, math.nan, None), Measured(1, 300.0, None)]
    pace = measured_pace([tiny()] * 3, found)
    # six training frames
    assert pace.seconds == pytest.approx(6 * 0.2) and "2 models and sizes, without validation" in pace.source
    assert measured_pace([tiny()], [Measured(1, math.nan, None)]) is None


def test_the_recorded_pace_leaves_out_the_epoch_before_the_first():
    rows = [epoch("a", 0, 500.0), epoch("a", 1, 10.0), epoch("a", 2, 20.0)]
    assert recorded_pace(rows, "by the {} epochs so far") == Pace(15.0, "by the 2 epochs so far")
    assert recorded_pace([], "") is None


def test_a_search_says_its_forecast_before_the_first_trial_ends(results, tiny_space, console, monkeypatch):
    monkeypatch.setattr(launch, "measure_all", lambda shapes, threads: [Measured(1, 100.0, None)] * len(shapes))
    study = StudyFolder(results / "hunt")
    run_search(study, tiny_space(LR, trials=2), Resources("inprocess"), console, seed=0, measured=True)
    lines = console.file.getvalue().splitlines()
    (line,) = (number for number, text in enumerate(lines) if text.startswith("2 trials, about "))
    assert "on 1 worker (by --measure: training steps of the model, without validation)" in lines[line]
    assert any("complete" in text for text in lines[line:]) and not any("complete" in text for text in lines[:line])
