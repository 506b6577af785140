"""A disk that cannot hold a study's files: no trial can help that, so the study stops and can go on later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.config import Trial
from harness.errors import StorageError
from harness.run.study import Wrapped
from harness.store import EpochRow, Failure, TrialRow, naming_what_fails


class StopsWithoutRoom(Wrapped):
    """A study whose calls raise StorageError, with one message, where its disk is full or refuses to be written.

    It is then left as if its driver had been killed: every trial that was under way can be resumed, from its last
    checkpoint, or anew where it has none.
    """

    def next_trial(self) -> Trial | None:
        with self._stopping():
            return self.study.next_trial()

    def on_epoch(self, row: EpochRow) -> bool:
        with self._stopping():
            return self.study.on_epoch(row)

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        if isinstance(error, Failure) and error.cause == "disk":
            raise self._stopped(error)
        with self._stopping():
            return self.study.on_end(trial_id, error)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            with naming_what_fails(self.folder.path):
                yield
        except StorageError as error:
            raise self._stopped(error) from error

    def _stopped(self, why: object) -> StorageError:
        return StorageError(f"study '{self.folder.name}' stopped: {why}")
