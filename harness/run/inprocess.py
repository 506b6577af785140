"""The executor without Ray: one trial after the other in this process, the same calls, the same journals."""

from __future__ import annotations

from harness.config import Trial
from harness.run.study import Study, runs_path
from harness.run.worker import TrialRun
from harness.store import Failure


def run_inprocess(study: Study, device: str | None = None) -> None:
    """Run a study to its end, or until it hands out no more trials, on a device; none: a GPU where there is one."""
    while (trial := study.next_trial()) is not None:
        study.on_end(trial.id, _run_trial(study, trial, device))


def _run_trial(study: Study, trial: Trial, device: str | None) -> Failure | None:
    run = TrialRun(trial, runs_path(study.folder, trial.id), device, study.record.last_epoch(trial.id))
    try:
        failure = _run_epochs(study, run)
    finally:
        unwritten = run.close()
    return failure or unwritten


def _run_epochs(study: Study, run: TrialRun) -> Failure | None:
    goes_on = True
    while goes_on:
        row = run.next_row()
        if isinstance(row, Failure):
            return row
        goes_on = study.on_epoch(row)
    return None
