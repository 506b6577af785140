"""The executor in virtual time: the calls of the real ones, and learning curves in place of trainings.

What is simulated is the time and the training alone; searcher, rungs and resuming are the real ones.
"""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import optuna

from harness.config import Section, Space
from harness.search import Search
from harness.simulate.curves import Curve, Curves
from harness.store import EpochRow, StudyFolder, TrialRow

R = TypeVar("R", bound=Section)


@dataclass
class Trace:
    """What became of one simulated study."""

    #: after each epoch of the study: true score of the weights with the highest observed score so far
    true: list[float] = field(default_factory=list)
    #: virtual seconds until the last epoch
    seconds: float = 0.0
    #: real seconds of each call of the search that did something
    calls: dict[str, list[float]] = field(default_factory=dict)
    trials: int = 0

    @property
    def epochs(self) -> int:
        """Epochs run."""
        return len(self.true)


def simulate(
    space: Space, curves: Curves, workers: int, seed: int, max_epochs: int | None = None, on_disk: bool = False
) -> Trace:
    """Run a search of a space in virtual time, to its end or for so many epochs in all.

    Args:
        on_disk: write journals and SQLite as a real study does (in a temporary folder), to time the calls.
    """
    with tempfile.TemporaryDirectory(prefix="harness-simulate-") as scratch:
        if on_disk:
            search = Search(StudyFolder(Path(scratch)), space, seed)
        else:
            storage = optuna.storages.InMemoryStorage()
            search = Search(MemoryFolder(Path(scratch)), space, seed, storage=storage)
        return run_simulated(search, curves, workers, max_epochs)


def run_simulated(search: Search, curves: Curves, workers: int, max_epochs: int | None = None) -> Trace:
    """Run a search, new or resumed, in virtual time, to its end or for so many epochs in all."""
    return _Simulation(search, curves, workers).run(max_epochs)


class _Simulation:
    """A heap of workers, each at the end of its trial's next epoch."""

    def __init__(self, search: Search, curves: Curves, workers: int) -> None:
        self.search, self.curves, self.workers = search, curves, workers
        self.trace = Trace()
        self.clock, self.events = 0.0, 0
        self.busy: list[tuple[float, int, str, Curve, int]] = []
        self.highest = float("-inf")

    def run(self, max_epochs: int | None) -> Trace:
        while self._fill():
            self.clock, _, trial, curve, epoch = heapq.heappop(self.busy)
            self._note(curve, epoch)
            if self._epoch(trial, curve, epoch):
                self._push(trial, curve, epoch + 1)
            else:
                self._call("on_end", self.search.on_end, trial)
            if self.trace.epochs == max_epochs:
                break
        self.trace.seconds, self.trace.trials = self.clock, len(self.search.proposals)
        return self.trace

    def _fill(self) -> bool:
        """Give idle workers trials; False where nothing runs any more."""
        while len(self.busy) < self.workers:
            trial = self._call("next_trial", self.search.next_trial)
            if trial is None:
                break
            name = trial.id
            curve = self.curves.curve(self.search.running[name].picked, trial.seed)
            rows = self.search.record.epochs.get(name, [])
            # as a training resumed from its checkpoint does: the last row again
            if not rows or self._epoch(name, curve, rows[-1].epoch):
                self._push(name, curve, len(rows) + 1)
        return bool(self.busy)

    def _push(self, trial: str, curve: Curve, epoch: int) -> None:
        self.events += 1
        heapq.heappush(self.busy, (self.clock + curve.seconds, self.events, trial, curve, epoch))

    def _epoch(self, trial: str, curve: Curve, epoch: int) -> bool:
        return self._call("on_epoch", self.search.on_epoch, _row(trial, curve, epoch))

    def _note(self, curve: Curve, epoch: int) -> None:
        true = self.trace.true
        if curve.observed[epoch - 1] > self.highest:
            self.highest = curve.observed[epoch - 1]
            true.append(float(curve.true[epoch - 1]))
        else:
            true.append(true[-1])

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        answer = function(*arguments)
        if name != "next_trial" or answer is not None:
            self.trace.calls.setdefault(name, []).append(time.perf_counter() - started)
        return answer


def _row(trial_id: str, curve: Curve, epoch: int) -> EpochRow:
    return EpochRow(
        trial=trial_id,
        epoch=epoch,
        score=float(curve.observed[epoch - 1]),
        train_loss=0.0,
        val_loss=0.0,
        terms={},
        iou={},
        train_score=None,
        lr={},
        train_seconds=curve.seconds,
        val_seconds=0.0,
        images=0,
        peak_memory_mb=None,
        done=epoch == len(curve.observed),
    )


class MemoryFolder(StudyFolder):
    """A study folder whose journals are lists; best.yaml alone is a file."""

    @property
    def trials(self) -> _MemoryJournal[TrialRow]:
        return self._journals()[0]

    @property
    def epochs(self) -> _MemoryJournal[EpochRow]:
        return self._journals()[1]

    def _journals(self) -> tuple[_MemoryJournal[TrialRow], _MemoryJournal[EpochRow]]:
        if "journals" not in self.__dict__:
            self.__dict__["journals"] = (_MemoryJournal(), _MemoryJournal())
        return self.__dict__["journals"]


class _MemoryJournal(Generic[R]):
    """A journal in memory."""

    def __init__(self) -> None:
        self.rows: list[R] = []

    def append(self, row: R) -> None:
        self.rows.append(row)

    def read(self) -> list[R]:
        return list(self.rows)
