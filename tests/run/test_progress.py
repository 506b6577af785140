"""What people see while a study runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.config import Experiment, Trial
from harness.run.progress import Progress, sparkline
from harness.store import EpochRow, TrialRow

TRIAL = Trial(Experiment(), 0)


def epoch(number: int, score: float) -> EpochRow:
    return EpochRow.model_construct(trial=TRIAL.id, epoch=number, score=score)


def ended(outcome: str, score: float | None, error: str | None = None) -> TrialRow:
    return TrialRow(
        trial=TRIAL.id,
        number=7,
        outcome=outcome,
        seed=0,
        picked={"lr": 0.00123456, "head": "linear"},
        score=score,
        best_epoch=1,
        epochs=2,
        seconds=1.0,
        error=error,
    )


@pytest.mark.parametrize(
    ("values", "bars"),
    [([], ""), ([0.3], "▁"), ([0.0, 1.0], "▁█"), ([1.0, 0.5, 0.0], "█▄▁"), ([0.2, 0.2], "▁▁")],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest_value(values, bars):
    assert sparkline(values) == bars


def test_off_a_terminal_there_is_one_line_per_ended_trial_and_nothing_else(console):
    with Progress(console, 3, 9) as progress:
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.1))
        progress.epoch(epoch(2, 0.6))
        progress.ended(TRIAL.id, ended("complete", 0.6))
    (line,) = console.file.getvalue().splitlines()
    assert line.split() == ["7", "complete", "0.6000", "2", "epochs", "▁█", "lr=0.00123", "head=linear"]


def test_a_failed_trials_line_says_what_went_wrong(console):
    with Progress(console, 3, 9) as progress:
        progress.started(TRIAL)
        progress.ended(TRIAL.id, ended("failed", None, "the loss is not finite"))
    assert "failed" in console.file.getvalue() and "the loss is not finite" in console.file.getvalue()


def test_an_interrupted_trial_leaves_no_line(console):
    with Progress(console, 3, 9) as progress:
        progress.started(TRIAL)
        progress.ended(TRIAL.id, None)
    assert console.file.getvalue() == ""


def test_a_paused_trial_is_counted_as_paused_and_goes_on_with_its_scores(console):
    with Progress(console, 3, 9) as progress:
        progress.started(TRIAL)
        assert "paused" not in progress._headline()
        progress.epoch(epoch(1, 0.1))
        progress.ended(TRIAL.id, None)
        assert progress._headline().startswith("0/3 trials: 0 complete, 0 stopped early, 0 failed, 1 paused")
        assert not progress.running
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.1))
        progress.epoch(epoch(2, 0.6))
        assert "paused" not in progress._headline()
        progress.ended(TRIAL.id, ended("complete", 0.6))
    (line,) = console.file.getvalue().splitlines()
    assert "▁█" in line


def test_a_trial_that_is_stopped_while_it_is_paused_has_a_line_with_its_scores(console):
    with Progress(console, 3, 9) as progress:
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.6))
        progress.ended(TRIAL.id, None)
        progress.ended(TRIAL.id, ended("stopped", 0.6))
        assert "0 complete, 1 stopped early, 0 failed ·" in progress._headline()
    assert "stopped" in console.file.getvalue() and "▁" in console.file.getvalue()


def test_on_a_terminal_the_panel_counts_outcomes_and_shows_running_trials():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    progress = Progress(console, 4, 9)
    progress.started(TRIAL)
    progress.epoch(epoch(1, 0.25))
    progress.ended_rows = [ended("complete", 0.5), ended("stopped", 0.7), ended("failed", None)]
    with console.capture() as capture:
        console.print(progress._panel())
    shown = capture.get()
    assert "3/4 trials: 1 complete, 1 stopped early, 1 failed" in shown
    assert "best 0.7000" in shown and "epoch 1/9" in shown and TRIAL.id in shown


def test_a_resumed_trials_repeated_epoch_counts_once(console):
    progress = Progress(console, 1, 9)
    progress.started(TRIAL)
    for number, score in ((1, 0.1), (2, 0.2), (2, 0.2), (3, 0.3)):
        progress.epoch(epoch(number, score))
    assert progress.running[TRIAL.id] == [0.1, 0.2, 0.3]


def test_a_narrow_console_cuts_a_line_instead_of_breaking_it():
    console = Console(file=io.StringIO(), width=40)
    with Progress(console, 1, 9) as progress:
        progress.ended(TRIAL.id, ended("complete", 0.6))
    assert len(console.file.getvalue().splitlines()) == 1
