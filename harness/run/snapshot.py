"""What a study looks like at one moment: plain values, kept up from the study's calls or from its files."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from harness.run.gpu_memory import GpuMemory
from harness.run.plan import Plan
from harness.run.remaining import epochs_left
from harness.search.constraints import violation
from harness.store import EpochRow, TrialRow
from harness.store.front import Costs

Status = Literal["running", "stopped", "finished"]

#: epochs whose pace counts for the time that is left, and how many it takes to know one
_RECENT, _ENOUGH = 50, 5


@dataclass
class TrialState:
    """A trial as far as it is known."""

    trial: str
    number: int | None = None
    picked: Mapping[str, Any] = field(default_factory=dict)
    #: of its own training; none: those of the plan
    planned_epochs: int | None = None
    scores: dict[int, float] = field(default_factory=dict)
    #: the highest score and its epoch
    best: tuple[float, int] | None = None
    #: whether its last epoch was the last of all
    done: bool = False
    state: Literal["running", "waiting", "ended"] = "running"
    row: TrialRow | None = None

    @property
    def epochs(self) -> int:
        """Epochs finished."""
        return max(self.scores, default=0)


@dataclass(frozen=True)
class RunningTrial:
    """A running trial as it is shown."""

    trial: str
    number: int | None
    picked: Mapping[str, Any]
    epochs: int
    of: int
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Best:
    """The highest score so far, of trials that did not fail."""

    trial: str
    number: int | None
    score: float
    epoch: int
    picked: Mapping[str, Any]
    #: early: trials that ran to their end come before it in the ranking
    stopped: bool = False


@dataclass(frozen=True)
class RungShown:
    """What became of the trials that reached a rung; the rest of them were stopped there."""

    epoch: int
    reached: int
    waiting: int
    passed: int
    best: float | None


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment."""

    plan: Plan
    status: Status
    running: tuple[RunningTrial, ...]
    #: trials at a rung that may go on
    waiting: int
    complete: int
    stopped: int
    failed: int
    best: Best | None
    rungs: tuple[RungShown, ...]
    last_failure: TrialRow | None
    #: since this driver started
    seconds: float | None
    #: seconds that the rest will take; none: not known yet
    left: float | None
    gpus: tuple[GpuMemory, ...] = ()
    #: trials that broke a constraint of the search
    infeasible: int = 0

    @property
    def ended(self) -> int:
        """Trials that ended, however."""
        return self.complete + self.stopped + self.failed + self.infeasible


class Tally:
    """All trials of a study, from which a Snapshot is drawn at any time."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.rule = plan, plan.rule()
        cost = None if plan.search is None else plan.search.cost
        self._costs = None if cost is None else Costs(cost)
        self.trials: dict[str, TrialState] = {}
        self.last_failure: TrialRow | None = None
        self._stopped_at: Counter[int] = Counter()
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._all_seconds = 0.0
        #: when no epoch may end any more, by the monotonic clock; none: no limit
        self.deadline: float | None = None
        #: seconds that the epochs of all trials may take together; none: no limit
        self.device_seconds: float | None = None
        self._finished_at: deque[float] = deque(maxlen=_RECENT)

    def known(
        self,
        trial_id: str,
        number: int | None = None,
        picked: Mapping[str, Any] | None = None,
        epochs: int | None = None,
    ) -> TrialState:
        """A trial, new or not, with what else is known of it."""
        trial = self.trials.setdefault(trial_id, TrialState(trial_id))
        trial.number = trial.number if number is None else number
        trial.picked = picked or trial.picked
        trial.planned_epochs = trial.planned_epochs if epochs is None else epochs
        return trial

    def epoch(self, row: EpochRow, live: bool = True) -> None:
        """A trial finished an epoch, just now (live) or at some time."""
        trial = self.known(row.trial)
        if row.epoch not in trial.scores:
            self._seconds.append(row.seconds)
            self._all_seconds += row.all_seconds
            if live:
                self._finished_at.append(time.monotonic())
        trial.scores[row.epoch], trial.done = row.score, row.done
        if trial.best is None or row.score > trial.best[0]:
            trial.best = row.score, row.epoch
        if self.plan.search is None or violation(self.plan.search.constraints, row) is None:
            self.rule.report(row.trial, row.epoch, row.score, *([] if self._costs is None else [self._costs.add(row)]))
        if trial.row is not None and row.epoch > trial.row.epochs:
            # out of time it had a row, and now it goes on
            self.goes_on(row.trial)

    def goes_on(self, trial_id: str) -> None:
        """A trial starts, or goes on although it waited or had a row."""
        trial = self.known(trial_id)
        if trial.row is not None and trial.row.outcome == "stopped":
            self._stopped_at[trial.row.epochs] -= 1
        trial.state, trial.row = "running", None

    def waits(self, trial_id: str) -> None:
        """A trial waits at a rung, or was interrupted."""
        self.known(trial_id).state = "waiting"

    def ended(self, row: TrialRow) -> None:
        """A trial ended."""
        trial = self.known(row.trial, row.number, row.picked)
        if trial.row is None and row.outcome == "stopped":
            self._stopped_at[row.epochs] += 1
        trial.state, trial.row = "ended", row
        if row.outcome == "failed":
            self.last_failure = row

    def snapshot(self, status: Status, seconds: float | None, gpus: tuple[GpuMemory, ...] = ()) -> Snapshot:
        """The study now."""
        outcomes = Counter(trial.row.outcome for trial in self.trials.values() if trial.row is not None)
        running = [trial for trial in self.trials.values() if trial.state == "running"]
        waiting = [trial for trial in self.trials.values() if trial.state == "waiting"]
        rungs = tuple(self._rung(epoch, waiting) for epoch in self.rule.rungs)
        return Snapshot(
            plan=self.plan,
            status=status,
            running=tuple(self._running(trial) for trial in running) if status == "running" else (),
            waiting=len(waiting),
            complete=outcomes["complete"],
            stopped=outcomes["stopped"],
            failed=outcomes["failed"],
            best=self._best(),
            rungs=rungs,
            last_failure=self.last_failure,
            seconds=seconds,
            left=self._left(running, rungs) if status == "running" else None,
            gpus=gpus,
            infeasible=outcomes["infeasible"],
        )

    def epochs_left(self) -> float | None:
        """Epochs that are still to be trained, with every trial going on that has not ended; none: not known."""
        if self.plan.planned is None:
            return None
        going = [trial for trial in self.trials.values() if trial.state != "ended"]
        at_rung = [trial for trial in going if self.is_at_rung(trial)]
        rungs = tuple(self._rung(epoch, at_rung) for epoch in self.rule.rungs)
        return self._epochs_left([trial for trial in going if trial not in at_rung], rungs, self.plan.planned)

    def is_at_rung(self, trial: TrialState) -> bool:
        """Whether a trial that has not ended is at a rung at which it waits."""
        if self.plan.baseline and trial.number == 0:
            return False
        return self.rule.pauses and trial.epochs in self.rule.rungs and not trial.done

    def _running(self, trial: TrialState) -> RunningTrial:
        of = trial.planned_epochs or self.plan.epochs
        return RunningTrial(trial.trial, trial.number, trial.picked, trial.epochs, of, tuple(trial.scores.values()))

    def _best(self) -> Best | None:
        bad = ("failed", "infeasible")
        sound = (trial for trial in self.trials.values() if trial.row is None or trial.row.outcome not in bad)
        best = max((trial for trial in sound if trial.best), key=lambda trial: trial.best[0], default=None)
        if best is None:
            return None
        stopped = best.row is not None and best.row.outcome == "stopped"
        return Best(best.trial, best.number, *best.best, best.picked, stopped)

    def _rung(self, epoch: int, waiting: list[TrialState]) -> RungShown:
        scores = self.rule.rungs[epoch]
        here = sum(trial.epochs == epoch for trial in waiting)
        passed = len(scores) - here - self._stopped_at[epoch]
        return RungShown(epoch, len(scores), here, passed, max(scores.values(), default=None))

    def _left(self, running: list[TrialState], rungs: tuple[RungShown, ...]) -> float | None:
        pace = self._pace(len(running))
        if pace is None or self.plan.planned is None:
            return None
        limits = [] if self.deadline is None else [max(0.0, self.deadline - time.monotonic())]
        if self.device_seconds is not None:
            limits.append(max(0.0, self.device_seconds - self._all_seconds) / max(1, len(running)))
        return min([self._epochs_left(running, rungs, self.plan.planned) / pace, *limits])

    def _epochs_left(self, running: list[TrialState], rungs: tuple[RungShown, ...], planned: int) -> float:
        under_way = [(trial.epochs, trial.planned_epochs or self.plan.epochs) for trial in running]
        unstarted = max(0, planned - len(self.trials))
        factor = 1 if self.plan.search is None else self.plan.search.reduction_factor
        ladder = [(rung.epoch, rung.reached, rung.passed) for rung in rungs]
        return epochs_left(under_way, unstarted, self.plan.epochs, ladder, factor, self.rule.pauses)

    def _pace(self, at_once: int) -> float | None:
        """Epochs a second: as they came in while we looked, else by what one takes; None before the first."""
        if len(self._finished_at) >= _ENOUGH:
            return (len(self._finished_at) - 1) / (time.monotonic() - self._finished_at[0])
        seconds = fmean(self._seconds) if self._seconds else 0.0
        return max(1, at_once) / seconds if seconds > 0 else None
