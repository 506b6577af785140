"""The executor without Ray: one trial after the other in this process, the same calls, the same journals."""

from __future__ import annotations

from harness.config import Trial
from harness.run.study import Study, runs_path
from harness.run.worker import TrialRun


def run_inprocess(study: Study) -> None:
    """Run a study to its end; on Ctrl-C return, the trial at hand left to be resumed, as Ray Tune does."""
    while (trial := study.next_trial()) is not None:
        error, interrupted = None, False
        try:
            error = _run_trial(study, trial)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            study.on_end(trial.id, error)
        if interrupted:
            return


def _run_trial(study: Study, trial: Trial) -> str | None:
    run = TrialRun(trial, runs_path(study.folder, trial.id))
    try:
        goes_on = True
        while goes_on:
            row = run.next_row()
            if isinstance(row, str):
                return row
            goes_on = study.on_epoch(row)
        return None
    finally:
        run.close()
