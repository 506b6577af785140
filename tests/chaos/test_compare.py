"""A disturbed study is judged by its journals against one that nothing disturbed."""

from __future__ import annotations

import pytest

from harness.chaos import Verdict, compare
from harness.store import EpochRow, Record, StudyFolder


def epoch(trial: str, number: int, score: float, seconds: float = 1.0) -> EpochRow:
    return EpochRow(
        trial=trial,
        epoch=number,
        score=score,
        train_loss=1.0,
        val_loss=1.0,
        terms={},
        iou={},
        train_score=None,
        lr={},
        train_seconds=seconds,
        val_seconds=seconds,
        images=6,
        peak_memory_mb=None,
        done=number == 2,
    )


@pytest.fixture
def study(tmp_path):
    """Two trials of two epochs, the second trial the better, in a folder of the given name."""

    def make(name: str, seconds: float = 1.0, second: float = 0.4) -> StudyFolder:
        folder = StudyFolder(tmp_path / name)
        folder.path.mkdir()
        record = Record(folder)
        for number, (trial, score) in enumerate((("one", 0.2), ("two", second))):
            for at in (1, 2):
                record.add_epoch(epoch(trial, at, score + 0.01 * at, seconds))
            record.end(trial, number, 0, "complete", picked={})
        return folder

    return make


def test_a_study_that_took_longer_and_found_the_same_is_good(study) -> None:
    verdict = compare(study("disturbed", seconds=9.0), study("alone"))
    assert verdict == Verdict(finished=2, lost=0, doubled=0, changed=0, best_equal=True) and verdict.good()


def test_a_missing_epoch_and_the_missing_end_of_a_trial_are_lost(study) -> None:
    disturbed, alone = study("disturbed"), study("alone")
    for journal in (disturbed.epochs.path, disturbed.trials.path):
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    verdict = compare(disturbed, alone)
    assert (verdict.finished, verdict.lost, verdict.doubled, verdict.best_equal) == (1, 2, 0, False)


def test_an_epoch_that_is_there_twice_is_doubled(study) -> None:
    disturbed, alone = study("disturbed"), study("alone")
    disturbed.epochs.append(epoch("one", 2, 0.22))
    verdict = compare(disturbed, alone)
    assert (verdict.lost, verdict.doubled) == (0, 1) and not verdict.good()


def test_another_score_and_a_trial_that_the_undisturbed_search_never_tried_are_changed(study) -> None:
    disturbed, alone = study("disturbed", second=0.1), study("alone")
    Record(disturbed).add_epoch(epoch("three", 1, 0.05))
    # two epochs and the end of trial two, and the epoch of trial three
    assert compare(disturbed, alone).changed == 4
    assert not compare(disturbed, alone).best_equal


def test_weights_of_the_best_trial_that_are_others_or_missing_are_not_equal(study) -> None:
    disturbed, alone = study("disturbed"), study("alone")
    for folder in (disturbed, alone):
        folder.run("two").path.mkdir(parents=True)
        folder.run("two").best.write_bytes(b"weights")
    assert compare(disturbed, alone).best_equal
    disturbed.run("two").best.write_bytes(b"weightz")
    assert not compare(disturbed, alone).best_equal
    disturbed.run("two").best.unlink()
    assert not compare(disturbed, alone).good()
