"""A study whose first trials all fail: something is wrong that the other trials share."""

from __future__ import annotations

from collections.abc import Container

from harness.config import Trial
from harness.errors import TrainingError
from harness.run.study import Study
from harness.store import EpochRow, TrialRow

#: failed trials, the first that end, after which no more are started
FIRST = 5


class GivesUp:
    """A study that starts no more trials once the first ones that end here have all failed.

    Others may still train while the quick failures end, so at first it only waits: as soon as one of those finishes
    an epoch, it goes on; if they fail too, it has given up. That makes the number independent of how many run at
    once. It counts from the start of this process: a resumed study has as many chances as a new one. Trials that
    fail without being run (values that exclude each other, a parent that failed) say nothing and do not count.
    """

    def __init__(self, study: Study, first: int = FIRST) -> None:
        self.study, self.first = study, first
        self.folder, self.record = study.folder, study.record
        self.running: set[str] = set()
        self.training: set[str] = set()
        self.failed: list[TrialRow] = []
        self.one_worked = False
        self.has_given_up = False

    def next_trial(self) -> Trial | None:
        if self._in_doubt():
            self.has_given_up = not self.running
            return None
        trial = self.study.next_trial()
        if trial is not None:
            self.running.add(trial.id)
        return trial

    def waits(self) -> bool:
        return bool(self.running) if self._in_doubt() else self.study.waits()

    def resumable(self) -> Container[str]:
        return self.study.resumable()

    def may_go_on(self) -> bool:
        return self.study.may_go_on()

    def on_epoch(self, row: EpochRow) -> bool:
        self.training.add(row.trial)
        return self.study.on_epoch(row)

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        self.running.discard(trial_id)
        row = self.study.on_end(trial_id, error)
        if row is not None:
            self.training.discard(trial_id)
            self.failed += [row] * (row.outcome == "failed")
            self.one_worked |= row.outcome != "failed"
        return row

    def check(self) -> None:
        """Say why, where it has given up.

        Raises:
            TrainingError: the first cause, and what to do.
        """
        if self.has_given_up:
            first = self.failed[0]
            raise TrainingError(
                f"study '{self.folder.name}' gave up: the first {len(self.failed)} trials all failed, the first with: "
                f"{first.error}. `harness rerun {self.folder.path} {first.number}` runs that one alone; mend the "
                "cause and start anew by another --name, since --resume does not train failed trials again"
            )

    def _in_doubt(self) -> bool:
        return len(self.failed) >= self.first and not self.one_worked and not self.training
