"""One trial inside the process that trains: rows, failures, letting go."""

from __future__ import annotations

import errno
import importlib
from pathlib import Path

import pytest
import torch

from harness.config import Trial
from harness.engine import kept
from harness.run.worker import TrialRun, pick_device
from harness.store import EpochRow, Failure, RunFolder


def test_a_trial_gives_one_row_per_epoch_and_says_when_it_is_done(tiny, tmp_path):
    trial = Trial(tiny(), 0)
    run = TrialRun(trial, tmp_path / "run")
    rows = [run.next_row() for _ in range(3)]
    assert [(row.trial, row.epoch, row.done) for row in rows] == [
        (trial.id, 1, False),
        (trial.id, 2, False),
        (trial.id, 3, True),
    ]
    assert RunFolder(tmp_path / "run").read_experiment() == trial.experiment
    assert not (tmp_path / "run" / "error.txt").exists()


def test_a_failing_trial_gives_its_message_and_keeps_the_traceback_in_a_file(tiny, tmp_path):
    run = TrialRun(Trial(tiny(training__batch_size=9), 0), tmp_path / "run")
    answer = run.next_row()
    assert isinstance(answer, str)
    assert answer.startswith("training.batch_size 9 with drop_last leaves no batch of 6 frames")
    traceback = (tmp_path / "run" / "error.txt").read_text()
    assert "Traceback (most recent call last)" in traceback and answer in traceback


def test_a_run_that_was_closed_goes_on_from_its_last_epoch(tiny, tmp_path):
    trial = Trial(tiny(), 0)
    first = TrialRun(trial, tmp_path / "run")
    rows = [first.next_row(), first.next_row()]
    first.close()
    second = TrialRun(trial, tmp_path / "run")
    again = second.next_row()
    assert again == rows[1]
    last = second.next_row()
    assert isinstance(last, EpochRow) and last.epoch == 3 and last.done


FROZEN = {"model__trainable_blocks": 0}


@pytest.mark.parametrize("model", [{}, FROZEN], ids=["trained as a whole", "a frozen encoder, kept"])
@pytest.mark.parametrize(
    ("before", "fails"),
    [({"optimiser__lr": 0.05}, False), ({"training__batch_size": 9}, True), ({"optimiser__lr": 9.9}, None)],
    ids=["after one that ended", "after one that failed", "after one that was cut short"],
)
def test_a_trial_after_another_in_one_process_leaves_the_bytes_of_the_trial_alone(
    before: dict, fails: bool | None, model: dict, tiny, tmp_path
):
    trial = Trial(tiny(**model, training__epochs=1), 1)
    kept._kept.clear()
    alone = run_trial(trial, tmp_path / "alone" / "run")
    kept._kept.clear()
    other = tiny(**model, **before, training__deterministic=True, training__epochs=1 if fails is False else 2)
    first = TrialRun(Trial(other, 0), tmp_path / "after" / "other")
    assert isinstance(first.next_row(), Failure) == bool(fails)
    first.close()
    after = run_trial(trial, tmp_path / "after" / "run")
    assert without_seconds(after) == without_seconds(alone)
    best = [(tmp_path / name / "run" / "best.safetensors").read_bytes() for name in ("alone", "after")]
    assert best[0] == best[1]


@pytest.fixture
def broken_disk(monkeypatch):
    """Every checkpoint that is written in the background fails; so does the traceback, where that is asked for."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(importlib.import_module("harness.engine.fit"), "write_checkpoint", fail)
    return lambda: monkeypatch.setattr(Path, "write_text", fail)


def test_a_file_that_cannot_be_written_when_a_trial_is_closed_is_its_failure(tiny, tmp_path, broken_disk, caplog):
    run = TrialRun(Trial(tiny(), 0), tmp_path / "run")
    assert isinstance(run.next_row(), EpochRow)
    failure = run.close()
    assert failure.cause == "error" and "Input/output error" in failure
    assert "Input/output error" in (tmp_path / "run" / "error.txt").read_text()
    assert run.close() is None
    other = TrialRun(Trial(tiny(), 1), tmp_path / "other")
    other.next_row()
    broken_disk()
    assert "Input/output error" in other.close() and "is not written" in caplog.text


def run_trial(trial: Trial, path: Path) -> EpochRow:
    run = TrialRun(trial, path)
    row = run.next_row()
    run.close()
    return row


def test_the_device_is_a_gpu_exactly_where_torch_sees_one():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def without_seconds(row: EpochRow) -> dict:
    return row.model_dump(exclude={"setup_seconds", "train_seconds", "val_seconds"})
