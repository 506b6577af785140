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
        return self.record.end(trial_id, len(self.record.ended), 0, "complete", picked={})


def _row(trial: str, score: float) -> EpochRow:
    return EpochRow(
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
