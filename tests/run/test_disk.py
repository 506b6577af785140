from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import Experiment, Trial
from harness.run.disk import Pruned
from harness.store import EpochRow, Record, StudyFolder


class Five:
    """A study of five trials that end with the scores 0.1 to 0.5, in an order of their own."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder, self.record = folder, Record(folder)

    def next_trial(self) -> Trial | None:
        return Trial(Experiment(), 0)

    def waits(self) -> bool:
        return False

    def resumable(self) -> tuple[str, ...]:
        return ()

    def on_epoch(self, row: EpochRow) -> bool:
        self.record.add_epoch(row)
        return True

    def on_end(self, trial_id: str, error: str | None = None):
        if error == "paused":
            return None
        return self.record.end(trial_id, len(self.record.ended), 0, error or "complete", picked={})


def _row(trial: str, score: float, parameters: int = 0) -> EpochRow:
    return EpochRow(parameters=parameters,
        trial=trial, epoch=1, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None, lr={},
        train_seconds=1.0, val_seconds=1.0, images=1, peak_memory_mb=None, done=True,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    for number in range(1, 6):
        run = folder.run(f"trial{number}")
        run.path.mkdir(parents=True)
        run.best.write_bytes(b"w" * 100)
        run.last.write_bytes(b"s" * 300)
        run.previous.write_bytes(b"p" * 300)
    return folder


def _end_all(study: Pruned) -> None:
    for number in (3, 1, 5, 2, 4):
        study.on_epoch(_row(f"trial{number}", number / 10))
        study.on_end(f"trial{number}")


def _with_weights(folder: StudyFolder) -> list[str]:
    return [f"trial{n}" for n in range(1, 6) if folder.run(f"trial{n}").best.exists()]


def test_an_ended_trial_leaves_no_state_to_resume_from(folder: StudyFolder) -> None:
    _end_all(Pruned(Five(folder), None))
    for run in (folder.run(f"trial{n}") for n in range(1, 6)):
        assert not run.last.exists() and not run.previous.exists()
    assert len(_with_weights(folder)) == 5


def _end(
    study: Pruned, number: int, outcome: str = "complete", score: float | None = None, parameters: int = 0
) -> None:
    study.on_epoch(_row(f"trial{number}", number / 10 if score is None else score, parameters))
    study.on_end(f"trial{number}", outcome)


def test_complete_trials_keep_their_weights_before_stopped_ones_that_scored_higher(folder: StudyFolder) -> None:
    study = Pruned(Five(folder), 0)
    for number, outcome in ((1, "complete"), (2, "complete"), (3, "stopped"), (4, "stopped"), (5, "failed")):
        _end(study, number, outcome)
    # as the ranking has them, whose first is exported
    assert [row.trial for row in study.record.ranking()] == ["trial2", "trial1", "trial4", "trial3"]
    assert _with_weights(folder) == ["trial1", "trial2", "trial4"]


def test_the_default_experiment_keeps_its_weights_whatever_it_scored(folder: StudyFolder) -> None:
    _end_all(Pruned(Five(folder), 0, baseline="trial1"))
    assert _with_weights(folder) == ["trial1", "trial3", "trial4", "trial5"]


def test_with_two_objectives_the_trials_of_the_front_keep_their_weights_longest(folder: StudyFolder) -> None:
    study = Pruned(Five(folder), 0, cost="parameters")
    for number, score, parameters in ((1, 0.9, 500), (2, 0.8, 500), (3, 0.7, 500), (4, 0.6, 400), (5, 0.5, 300)):
        _end(study, number, score=score, parameters=parameters)
    assert _with_weights(folder) == ["trial1", "trial4", "trial5"]


def test_what_waiting_trials_hold_counts_and_they_lose_nothing_but_their_spare_checkpoints(folder: StudyFolder) -> None:
    study = Pruned(Five(folder), 1000)
    for number in (2, 3, 4, 1):
        _end(study, number)
    # four times 100 bytes of weights, and 700 of the trial that has not ended
    assert _with_weights(folder) == ["trial2", "trial3", "trial4", "trial5"]
    study.budget = 600
    _end(study, 5, "paused")
    assert folder.run("trial5").previous.exists()
    # its files may have been on their way to the disk until now
    study.on_end("trial1", "paused")
    run = folder.run("trial5")
    assert run.last.exists() and run.best.exists() and not run.previous.exists()
    assert _with_weights(folder) == ["trial2", "trial3", "trial4", "trial5"]


def test_a_paused_trial_keeps_its_state(folder: StudyFolder) -> None:
    study = Pruned(Five(folder), 0)
    study.on_epoch(_row("trial1", 0.1))
    assert study.on_end("trial1", "paused") is None
    run = folder.run("trial1")
    assert run.last.exists() and run.previous.exists() and run.best.exists()


def test_over_the_budget_the_worst_trials_lose_their_weights(folder: StudyFolder) -> None:
    _end_all(Pruned(Five(folder), 400))
    assert _with_weights(folder) == ["trial2", "trial3", "trial4", "trial5"]


def test_the_three_best_keep_their_weights_whatever_the_budget(folder: StudyFolder) -> None:
    _end_all(Pruned(Five(folder), 0))
    assert _with_weights(folder) == ["trial3", "trial4", "trial5"]


def test_a_resumed_study_counts_the_weights_of_earlier_trials(folder: StudyFolder) -> None:
    first = Pruned(Five(folder), None)
    for number in (3, 1, 5, 2):
        first.on_epoch(_row(f"trial{number}", number / 10))
        first.on_end(f"trial{number}")
    again = Pruned(Five(folder), 350)
    again.on_epoch(_row("trial4", 0.4))
    again.on_end("trial4")
    assert _with_weights(folder) == ["trial3", "trial4", "trial5"]
