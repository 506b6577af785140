"""The running record of a study: its journals, and what they say so far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.store.folders import StudyFolder
from harness.store.rows import EpochRow, Failure, Outcome, TrialRow


class Record:
    """The rows of a study, on disk and in memory; the driver is their only writer."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.ended: dict[str, TrialRow] = {row.trial: row for row in folder.trials.read()}
        self.epochs: dict[str, list[EpochRow]] = {}
        for row in folder.epochs.read():
            self.epochs.setdefault(row.trial, []).append(row)

    def add_epoch(self, row: EpochRow) -> bool:
        """Write a row; False, and nothing written, where that epoch of the trial is known (a resumed run)."""
        known = self.epochs.setdefault(row.trial, [])
        if known and row.epoch <= known[-1].epoch:
            return False
        self.folder.epochs.append(row)
        known.append(row)
        return True

    def last_epoch(self, trial: str) -> int:
        """The last epoch of a trial that has a row; -1 where none has."""
        rows = self.epochs.get(trial)
        return rows[-1].epoch if rows else -1

    def end(
        self,
        trial: str,
        number: int,
        seed: int,
        outcome: Outcome,
        *,
        picked: dict[str, Any],
        error: str | None = None,
    ) -> TrialRow:
        """Write a trial's last row and return it."""
        rows = self.epochs.get(trial, [])
        best = best_epoch(rows)
        row = TrialRow(
            trial=trial,
            number=number,
            outcome=outcome,
            seed=seed,
            picked=picked,
            score=best.score if best else None,
            best_epoch=best.epoch if best else None,
            epochs=sum(r.epoch > 0 for r in rows),
            seconds=sum(r.all_seconds for r in rows),
            error=error,
            out_of_memory=isinstance(error, Failure) and error.cause == "memory",
        )
        self.folder.trials.append(row)
        self.ended[trial] = row
        return row

    def ranking(self) -> list[TrialRow]:
        """Ended trials with a score, the best first; trials that ran to their end before those stopped."""
        sound = (row for row in self.ended.values() if row.outcome in ("complete", "stopped"))
        scored = [row for row in sound if row.score is not None]
        return sorted(scored, key=lambda row: (row.outcome != "complete", -row.score, row.number))


def best_epoch(rows: Iterable[EpochRow]) -> EpochRow | None:
    """The first row of the highest score; None where there is none."""
    return max(rows, key=lambda row: row.score, default=None)
