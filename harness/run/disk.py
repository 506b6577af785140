"""Checkpoints that a study no longer needs, removed as it goes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from harness.config import Trial
from harness.config.space import Objective
from harness.run.study import Study, Wrapped
from harness.store import RunFolder, TrialRow
from harness.store.front import ranking_of

#: trials whose weights are never removed, beside the default Experiment's
_KEPT = 3


class Pruned(Wrapped):
    """A study whose ended trials leave no state to resume from, and, over a budget, only the best leave weights.

    Epochs, scores and confusion matrices stay: every table can still be made. Of a trial that waits, what is needed to
    go on stays too.
    """

    def __init__(
        self, study: Study, budget: float | None, baseline: str | None = None, cost: Objective | None = None
    ) -> None:
        """Take the budget in bytes for weights and checkpoints of all trials; None: no limit.

        Args:
            baseline: the trial with which the others are compared: it keeps its weights.
            cost: the second objective, where there is one: the trials of the front keep theirs longest.
        """
        super().__init__(study)
        self.budget, self.baseline, self.cost = budget, baseline, cost
        runs = self.folder.path / "runs"
        #: trials that may have files to count
        self.held = {path.name for path in runs.iterdir()} if budget is not None and runs.is_dir() else set()
        #: those that wait, all their files written
        self.waiting: set[str] = set()

    def next_trial(self) -> Trial | None:
        ended_before = len(self.record.ended)
        trial = self.study.next_trial()
        for row in list(islice(self.record.ended.values(), ended_before, None)):
            if row.trial not in self.resumable():
                self._prune(row)
        if trial is not None:
            self.held.add(trial.id)
            self.waiting.discard(trial.id)
        return trial

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        row = self.study.on_end(trial_id, error)
        if row is not None:
            self._prune(row)
        else:
            self._make_room()
            # its last checkpoint may be on its way to the disk yet
            self.waiting.add(trial_id)
        return row

    def _prune(self, row: TrialRow) -> None:
        run = self.folder.run(row.trial)
        for state in (run.last, run.previous):
            state.unlink(missing_ok=True)
        self.held.add(row.trial)
        self.waiting.discard(row.trial)
        self._make_room()

    def _make_room(self) -> None:
        """Remove spare checkpoints of waiting trials, then the weights of the worst, until the budget is kept."""
        if self.budget is None:
            return
        used = sum(_size(path) for trial in self.held for path in _files(self.folder.run(trial)))
        for trial in self.waiting if used > self.budget else ():
            used -= _remove(self.folder.run(trial).previous)
        for trial in self._worst_first() if used > self.budget else ():
            used -= _remove(self.folder.run(trial).best)
            self.held.discard(trial)
            if used <= self.budget:
                return

    def _worst_first(self) -> list[str]:
        """Ended trials that may lose their weights."""
        rows = (*ranking_of(self.record, self.cost), *self.record.ranking())
        best_first = list(dict.fromkeys(row.trial for row in rows))
        stay = {self.baseline, *best_first[:_KEPT]}
        unranked = self.record.ended.keys() - best_first
        may, resumable = self.held - stay, self.resumable()
        removed = (*sorted(unranked), *reversed(best_first))
        return [trial for trial in removed if trial in may and trial not in resumable]


def _files(run: RunFolder) -> tuple[Path, ...]:
    return run.best, run.last, run.previous


def _remove(path: Path) -> int:
    """Remove a file; returns how many bytes it had."""
    size = _size(path)
    path.unlink(missing_ok=True)
    return size


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
