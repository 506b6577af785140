"""The running record of a study: nothing doubled, nothing lost, one ranking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.store import EpochRow, Record, StudyFolder, best_epoch

Row = Callable[..., EpochRow]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


def test_an_epoch_that_is_yielded_again_is_not_written_again(folder: StudyFolder, epoch_row: Row) -> None:
    record = Record(folder)
    assert record.add_epoch(epoch_row(epoch=1))
    assert record.add_epoch(epoch_row(epoch=2))
    assert not record.add_epoch(epoch_row(epoch=2, score=0.9))
    assert not record.add_epoch(epoch_row(epoch=1))
    assert record.add_epoch(epoch_row("other", epoch=1))
    assert [(row.trial, row.epoch, row.score) for row in folder.epochs.read()] == [
        ("t", 1, 0.5),
        ("t", 2, 0.5),
        ("other", 1, 0.5),
    ]


def test_a_record_read_from_disk_knows_what_the_first_one_wrote(folder: StudyFolder, epoch_row: Row) -> None:
    first = Record(folder)
    first.add_epoch(epoch_row(epoch=1))
    first.add_epoch(epoch_row(epoch=2, score=0.75))
    first.end("t", 0, 7, "complete", picked={"lr": 0.1})
    again = Record(folder)
    assert (again.epochs, again.ended) == (first.epochs, first.ended)
    assert not again.add_epoch(epoch_row(epoch=2))
    assert again.add_epoch(epoch_row(epoch=3))


def test_the_end_of_a_trial_sums_up_its_epochs(folder: StudyFolder, epoch_row: Row) -> None:
    record = Record(folder)
    for epoch, score in enumerate([0.25, 0.75, 0.5], 1):
        record.add_epoch(epoch_row(epoch=epoch, score=score))
    row = record.end("t", 4, 7, "stopped", picked={"head": "linear"})
    assert (row.number, row.seed, row.outcome, row.picked, row.error) == (4, 7, "stopped", {"head": "linear"}, None)
    assert (row.score, row.best_epoch, row.epochs, row.seconds) == (0.75, 2, 3, 7.5)
    assert folder.trials.read() == [row]


def test_a_trial_that_failed_before_its_first_epoch_has_no_score(folder: StudyFolder) -> None:
    row = Record(folder).end("t", 0, 0, "failed", picked={}, error="out of memory")
    assert (row.score, row.best_epoch, row.epochs, row.seconds, row.error) == (None, None, 0, 0, "out of memory")


def test_the_best_epoch_is_the_first_of_the_highest_score(epoch_row: Row) -> None:
    rows = [epoch_row(epoch=epoch, score=score) for epoch, score in enumerate([0.25, 0.75, 0.75, 0.5], 1)]
    assert best_epoch(rows).epoch == 2
    assert best_epoch([]) is None


def test_the_ranking_puts_whole_trainings_before_stopped_ones_and_leaves_failed_ones_out(
    folder: StudyFolder, epoch_row: Row
) -> None:
    record = Record(folder)
    trials = [
        ("stopped early, high", "stopped", 0.9),
        ("complete, low", "complete", 0.25),
        ("failed, high", "failed", 0.95),
        ("complete, tied later", "complete", 0.75),
        ("stopped, low", "stopped", 0.125),
        ("complete, tied latest", "complete", 0.75),
    ]
    for number, (name, outcome, score) in enumerate(trials):
        record.add_epoch(epoch_row(name, score=score))
        record.end(name, number, 0, outcome, picked={})
    record.end("failed at once", 6, 0, "failed", picked={}, error="x")
    expected = [
        "complete, tied later",
        "complete, tied latest",
        "complete, low",
        "stopped early, high",
        "stopped, low",
    ]
    assert [row.trial for row in record.ranking()] == expected
    assert [row.trial for row in Record(folder).ranking()] == expected


def test_a_trial_without_an_end_is_not_ranked(folder: StudyFolder, epoch_row: Row) -> None:
    record = Record(folder)
    record.add_epoch(epoch_row(score=0.9))
    assert record.ranking() == []
