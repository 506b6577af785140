"""Arms and seeds without a training: order, resuming, arms that start from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ablate import Replicates
from harness.config import Experiment, apply_overrides
from harness.store import EpochRow, StudyFolder


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


@pytest.fixture
def arms() -> dict[str, Experiment]:
    return {"base": Experiment(), "dice": apply_overrides(Experiment(), {"loss.dice.weight": 1.0})}


def row(trial: str, epoch: int, score: float, done: bool) -> EpochRow:
    return EpochRow(
        trial=trial, epoch=epoch, score=score, train_loss=1.0, val_loss=1.0, terms={}, iou={}, train_score=None,
        lr={}, train_seconds=1.0, val_seconds=1.0, images=6, peak_memory_mb=None, done=done,
    )  # fmt: skip


def finish(study: Replicates, score: float = 0.5) -> str:
    trial = study.next_trial()
    assert not study.on_epoch(row(trial.id, 1, score, done=True))
    assert study.on_end(trial.id).outcome == "complete"
    return trial.id


def test_every_arm_is_trained_with_every_seed_seed_by_seed(folder, arms):
    study = Replicates(folder, arms, [0, 3])
    trials = [study.next_trial() for _ in range(5)]
    assert [(t.experiment, t.seed) for t in trials[:4]] == [
        (arms["base"], 0),
        (arms["dice"], 0),
        (arms["base"], 3),
        (arms["dice"], 3),
    ]
    assert trials[4] is None


def test_no_trial_is_stopped_however_low_its_score(folder, arms):
    study = Replicates(folder, arms, [0])
    good, bad = study.next_trial(), study.next_trial()
    assert study.on_epoch(row(good.id, 1, 0.9, done=False))
    assert study.on_epoch(row(bad.id, 1, 0.0, done=False))


def test_the_rows_name_arm_number_and_seed(folder, arms):
    study = Replicates(folder, arms, [0, 1])
    for _ in range(4):
        finish(study)
    rows = folder.trials.read()
    assert [(r.number, r.seed, r.picked["arm"]) for r in rows] == [
        (0, 0, "base"),
        (1, 0, "dice"),
        (2, 1, "base"),
        (3, 1, "dice"),
    ]


def test_a_failed_trial_keeps_its_message_and_is_not_run_again(folder, arms):
    study = Replicates(folder, arms, [0])
    trial = study.next_trial()
    assert study.on_end(trial.id, "out of memory").error == "out of memory"
    assert Replicates(folder, arms, [0]).next_trial().experiment == arms["dice"]


def test_ended_trials_are_left_out_on_resuming_and_interrupted_ones_come_first(folder, arms):
    study = Replicates(folder, arms, [0, 1])
    ended = finish(study)
    interrupted = study.next_trial()
    study.on_epoch(row(interrupted.id, 1, 0.1, done=False))
    assert study.on_end(interrupted.id) is None
    resumed = Replicates(folder, arms, [0, 1])
    left = [resumed.next_trial() for _ in range(3)]
    assert left[0] == interrupted
    assert ended not in {trial.id for trial in left}
    # the checkpoint's epoch comes again and is not written twice
    resumed.on_epoch(row(interrupted.id, 1, 0.1, done=False))
    resumed.on_epoch(row(interrupted.id, 2, 0.3, done=True))
    assert [r.epoch for r in folder.epochs.read() if r.trial == interrupted.id] == [1, 2]
    assert resumed.on_end(interrupted.id).score == 0.3


def test_more_seeds_go_on_where_the_study_ended(folder, arms):
    study = Replicates(folder, arms, [0])
    for _ in range(2):
        finish(study)
    more = Replicates(folder, arms, [0, 1])
    assert [more.next_trial().seed, more.next_trial().seed, more.next_trial()] == [1, 1, None]
