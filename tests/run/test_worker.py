"""One trial inside the process that trains: rows, failures, letting go."""

from __future__ import annotations

import torch

from harness.config import Trial
from harness.run.worker import TrialRun, pick_device
from harness.store import EpochRow, RunFolder


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


def test_a_trial_after_another_in_one_process_equals_the_trial_alone(tiny, tmp_path):
    other = tiny(training__deterministic=True, optimiser__lr=0.05, training__epochs=1)
    trial = Trial(tiny(training__epochs=1), 1)
    alone = TrialRun(trial, tmp_path / "alone").next_row()
    before = TrialRun(Trial(other, 0), tmp_path / "other")
    before.next_row()
    before.close()
    after = TrialRun(trial, tmp_path / "after").next_row()
    assert without_seconds(after) == without_seconds(alone)


def test_the_device_is_a_gpu_exactly_where_torch_sees_one():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def without_seconds(row: EpochRow) -> dict:
    return row.model_dump(exclude={"setup_seconds", "train_seconds", "val_seconds"})
