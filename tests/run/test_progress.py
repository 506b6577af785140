"""What people see while a study runs."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness.ablate import Replicates
from harness.config import Experiment, Trial
from harness.run import Resources, run_search
from harness.run.folder_view import FolderView
from harness.run.progress import Progress, facts_of
from harness.store import EpochRow, StudyFolder, TrialRow

TRIAL = Trial(Experiment(), 0)


def study(name: str = "hunt", **record) -> SimpleNamespace:
    """A study that is neither a search nor arms, with what was recorded of it before."""
    return SimpleNamespace(
        folder=StudyFolder(Path(name)), record=SimpleNamespace(**{"epochs": {}, "ended": {}} | record)
    )


def epoch(number: int, score: float) -> EpochRow:
    return EpochRow.model_construct(
        trial=TRIAL.id, epoch=number, score=score, train_seconds=1.0, val_seconds=0.5, done=False
    )


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


def test_off_a_terminal_there_is_one_line_per_ended_trial_and_nothing_else(console):
    with Progress(console, study(), 3, 9) as progress:
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.1))
        progress.epoch(epoch(2, 0.6))
        progress.ended(TRIAL.id, ended("complete", 0.6))
    (line,) = console.file.getvalue().splitlines()
    assert line.split() == ["7", "complete", "0.6000", "2", "epochs", "▁█", "lr=0.00123", "head=linear"]


def test_a_failed_trials_line_says_what_went_wrong(console):
    with Progress(console, study(), 3, 9) as progress:
        progress.started(TRIAL)
        progress.ended(TRIAL.id, ended("failed", None, "the loss is not finite"))
    assert "failed" in console.file.getvalue() and "the loss is not finite" in console.file.getvalue()


def test_an_interrupted_trial_leaves_no_line(console):
    with Progress(console, study(), 3, 9) as progress:
        progress.started(TRIAL)
        progress.ended(TRIAL.id, None)
    assert console.file.getvalue() == ""


def test_a_quiet_console_shows_nothing_even_on_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, quiet=True)
    with Progress(console, study(), 3, 9) as progress:
        progress.started(TRIAL)
        progress.ended(TRIAL.id, ended("failed", None, "broken"))
        assert not progress.live.is_started
    assert console.file.getvalue() == ""


def test_a_paused_trial_waits_and_goes_on_with_its_scores(console):
    with Progress(console, study(), 3, 9) as progress:
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.1))
        progress.ended(TRIAL.id, None)
        paused = progress.snapshot()
        assert (paused.running, paused.waiting) == ((), 1)
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.1))
        progress.epoch(epoch(2, 0.6))
        (running,) = progress.snapshot().running
        assert (running.epochs, running.of, running.scores) == (2, TRIAL.experiment.training.epochs, (0.1, 0.6))
        progress.ended(TRIAL.id, ended("complete", 0.6))
    (line,) = console.file.getvalue().splitlines()
    assert "▁█" in line


def test_on_a_terminal_the_dashboard_is_drawn_and_taken_away_at_the_end():
    console = Console(file=io.StringIO(), width=120, height=30, force_terminal=True, color_system=None)
    with Progress(console, study(), 4, 9) as progress:
        progress.started(TRIAL)
        progress.epoch(epoch(1, 0.25))
        progress.live.refresh()
        shown = console.file.getvalue()
        assert progress.live.is_started
    assert "0 of 4 trials ended · 1 running" in shown
    assert "0.2500" in shown and TRIAL.id in shown
    assert console.file.getvalue().endswith("\x1b[1A\x1b[2K")


def test_a_narrow_console_cuts_a_line_instead_of_breaking_it():
    console = Console(file=io.StringIO(), width=40)
    with Progress(console, study(), 1, 9) as progress:
        progress.ended(TRIAL.id, ended("complete", 0.6))
    assert len(console.file.getvalue().splitlines()) == 1


@pytest.mark.parametrize("fault", [OSError("the terminal is gone"), UnicodeEncodeError("ascii", "▁", 0, 1, "no")])
def test_a_terminal_that_is_gone_ends_the_view_with_one_word_and_not_the_study(monkeypatch, capsys, fault):
    console = Console(file=io.StringIO(), width=80)

    def broken(*_, **__):
        raise fault

    monkeypatch.setattr(console, "print", broken)
    with Progress(console, study(), 2, 9) as progress:
        for _ in range(2):
            progress.started(TRIAL)
            progress.ended(TRIAL.id, ended("complete", 0.6))
    said = capsys.readouterr().err
    assert said.count("the live view is off, the study goes on") == 1
    assert type(fault).__name__ in said


def test_a_closed_pipe_does_not_end_the_study(monkeypatch, capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = Console(file=Closed(), width=80)
    # rich's own answer to a closed pipe, without its change of this process's standard output
    monkeypatch.setattr(console, "on_broken_pipe", lambda: (_ for _ in ()).throw(SystemExit(1)))
    with Progress(console, study(), 2, 9) as progress:
        progress.ended(TRIAL.id, ended("complete", 0.6))
        assert progress.snapshot().complete == 1
    assert "the study goes on" in capsys.readouterr().err


def test_a_resumed_study_counts_what_was_there_before(console):
    before = {"ended": {TRIAL.id: ended("stopped", 0.5)}, "epochs": {TRIAL.id: [epoch(1, 0.5)]}}
    with Progress(console, study(**before), 3, 9) as progress:
        snapshot = progress.snapshot()
    assert (snapshot.ended, snapshot.stopped, snapshot.waiting) == (1, 1, 0)
    assert snapshot.best.score == 0.5
    assert console.file.getvalue() == ""


def test_an_arms_trial_is_known_by_its_arm_and_seed(folder, tiny):
    arms = Replicates(folder, {"base": tiny(), "slow": tiny(optimiser__lr=1e-5)}, [0, 1])
    trials = [arms.next_trial() for _ in range(4)]
    assert [facts_of(arms, trial.id) for trial in trials] == [
        (0, {"arm": "base", "seed": 0}),
        (1, {"arm": "slow", "seed": 0}),
        (2, {"arm": "base", "seed": 1}),
        (3, {"arm": "slow", "seed": 1}),
    ]


def test_the_driver_and_the_folder_tell_of_the_same_search(results, tiny_space, console, monkeypatch):
    seen = []

    class Spied(Progress):
        def __exit__(self, *parts):
            seen.append(self.snapshot())
            super().__exit__(*parts)

    monkeypatch.setattr("harness.run.launch.Progress", Spied)
    study = StudyFolder(results / "hunt")
    run_search(study, tiny_space(trials=4), Resources("inprocess"), console, seed=0)
    (driver,), folder = seen, FolderView(study).look()
    assert folder.status == "finished"
    for field in ("plan", "complete", "stopped", "failed", "best", "rungs", "waiting", "running", "last_failure"):
        assert getattr(driver, field) == getattr(folder, field), field
    assert folder.ended == 4
