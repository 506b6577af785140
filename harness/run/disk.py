"""Checkpoints that a study no longer needs, removed as it goes."""

from __future__ import annotations

from collections.abc import Container
from itertools import islice

from harness.config import Trial
from harness.run.study import Study
from harness.store import EpochRow, StudyFolder, TrialRow

#: trials whose weights are never removed
_KEPT = 3


class Pruned:
    """A study whose ended trials leave no state to resume from, and, over a budget, only the best leave weights.

    Epochs, scores and confusion matrices stay: every table can still be made.
    """

    def __init__(self, study: Study, budget: float | None) -> None:
        """Take the budget in bytes for the weights of ended trials; None: all of them stay."""
        self.study, self.budget = study, budget
        self.folder, self.record = study.folder, study.record
        self.weights = {row.trial: row for row in study.record.ended.values() if _size(study.folder, row)}

    def next_trial(self) -> Trial | None:
        ended_before = len(self.record.ended)
        trial = self.study.next_trial()
        for row in list(islice(self.record.ended.values(), ended_before, None)):
            if row.trial not in self.resumable():
                self._prune(row)
        return trial

    def resumable(self) -> Container[str]:
        return self.study.resumable()

    def waits(self) -> bool:
        return self.study.waits()

    def may_go_on(self) -> bool:
        return self.study.may_go_on()

    def on_epoch(self, row: EpochRow) -> bool:
        return self.study.on_epoch(row)

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        row = self.study.on_end(trial_id, error)
        if row is not None:
            self._prune(row)
        return row

    def _prune(self, row: TrialRow) -> None:
        run = self.folder.run(row.trial)
        for state in (run.last, run.previous):
            state.unlink(missing_ok=True)
        self._make_room(row)

    def _make_room(self, row: TrialRow) -> None:
        """Remove the weights of the worst trials until the rest is within the budget."""
        self.weights[row.trial] = row
        if self.budget is None:
            return
        worst_first = sorted(self.weights.values(), key=_score)[: max(0, len(self.weights) - _KEPT)]
        used = sum(_size(self.folder, other) for other in self.weights.values())
        for other in worst_first:
            if used <= self.budget:
                return
            used -= _size(self.folder, other)
            self.folder.run(other.trial).best.unlink(missing_ok=True)
            del self.weights[other.trial]


def _score(row: TrialRow) -> float:
    return -1.0 if row.score is None or row.outcome == "infeasible" else row.score


def _size(folder: StudyFolder, row: TrialRow) -> int:
    path = folder.run(row.trial).best
    return path.stat().st_size if path.exists() else 0
