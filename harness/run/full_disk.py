"""A disk without room for a study's files: no trial can help that, so the study stops and can go on later."""

from __future__ import annotations

from harness.config import Trial
from harness.errors import DiskFull
from harness.run.study import Study, Wrapped
from harness.store import EpochRow, Failure, TrialRow


class StopsWithoutRoom(Wrapped):
    """A study that hears of nothing more once its disk is full, as if its driver had been killed then.

    Every trial that was under way can be resumed, from its last checkpoint, or anew where it has none.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self.why: str | None = None

    def next_trial(self) -> Trial | None:
        if self.why is not None:
            return None
        try:
            return self.study.next_trial()
        except DiskFull as error:
            self.why = str(error)
            return None

    def waits(self) -> bool:
        return self.why is None and self.study.waits()

    def on_epoch(self, row: EpochRow) -> bool:
        if self.why is not None:
            return False
        try:
            return self.study.on_epoch(row)
        except DiskFull as error:
            self.why = str(error)
            return False

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        if isinstance(error, Failure) and error.cause == "disk":
            self.why = self.why or str(error)
        if self.why is not None:
            return None
        try:
            return self.study.on_end(trial_id, error)
        except DiskFull as full:
            self.why = str(full)
            return None

    def check(self) -> None:
        """Say what is full, where that stopped the study.

        Raises:
            DiskFull: the folder, what is free there, and what to do.
        """
        if self.why is not None:
            raise DiskFull(f"study '{self.folder.name}' stopped: {self.why}")
