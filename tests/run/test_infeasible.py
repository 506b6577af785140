"""Infeasible trials in the live view: counted as such, no rivals at a rung, never the best, no failures."""

from __future__ import annotations

from rich.console import Console

from harness.cli.app import exit_study
from harness.config.space import Constraints, SearchConfig
from harness.run.dashboard import ended_line, frame
from harness.run.plan import Plan
from harness.run.snapshot import Tally
from harness.store import EpochRow, TrialRow

BROKEN = "infeasible: 2000 MB of peak GPU memory > 1000"


def epoch_row(trial: str, score: float, memory: float) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=1, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=6, peak_memory_mb=memory, done=False,
    )  # fmt: skip


def trial_row(trial: str, number: int, outcome: str, error: str | None = None) -> TrialRow:
    return TrialRow(
        trial=trial, number=number, outcome=outcome, seed=0, picked={"lr": 0.1}, score=0.9, best_epoch=1, epochs=1,
        seconds=2.0, error=error,
    )  # fmt: skip


def test_they_are_shown_apart_and_are_never_the_best():
    limit = Constraints.model_validate({"peak_memory_mb": {"max": 1000.0}})
    tally = Tally(Plan("hunt", "search", 4, 9, False, SearchConfig(strategy="asha", constraints=limit)))
    tally.epoch(epoch_row("greedy", 0.9, 2000.0))
    tally.ended(trial_row("greedy", 0, "infeasible", BROKEN))
    tally.epoch(epoch_row("modest", 0.2, 500.0))
    tally.ended(trial_row("modest", 1, "stopped"))
    now = tally.snapshot("running", 1.0)
    assert (now.infeasible, now.stopped, now.failed, now.ended) == (1, 1, 0, 2)
    assert now.best.trial == "modest" and now.rungs[0].reached == 1 and now.last_failure is None
    console = Console(width=100)
    with console.capture() as capture:
        console.print(frame(now, 100, 30))
    assert "2 of 4 trials ended · 1 stopped early · 1 infeasible" in capture.get()
    assert str(ended_line(trial_row("greedy", 0, "infeasible", BROKEN), [0.9])).endswith(BROKEN)


def test_they_do_not_count_as_failed_for_the_exit_code():
    assert exit_study("hunt", interrupted=False, rows=[trial_row("greedy", 0, "infeasible", BROKEN)]) is None
