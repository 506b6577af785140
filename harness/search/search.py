"""The search: proposals, rungs and journals behind the three calls that an executor makes."""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Container
from typing import Any, Literal

from optuna.storages import BaseStorage

from harness.config import (
    Experiment,
    SearchSettings,
    Space,
    Trial,
    apply_overrides,
    load_yaml,
    read_section,
    to_overrides,
)
from harness.config.space import Objective
from harness.errors import ConfigError, StudyError
from harness.search.constraints import too_large, violation
from harness.search.default import baseline_pick
from harness.search.proposals import SHELVED, Proposals, in_order, outcome_of
from harness.search.rungs import Verdict
from harness.search.strategies import rung_rule
from harness.search.values import Outcome, Picked
from harness.store import EpochRow, Record, StudyFolder, TrialRow, experiment_text, write_text
from harness.store.front import Costs, cost_of, ranking_of


class Search:
    """A study whose trials are proposed by a model and stopped, or paused, at rungs.

    The journals and Optuna's storage hold everything: opening a folder again replays the rungs from the
    rows and starts with the trials that did not end. A paused trial is one that has not ended, waits at a rung
    and holds nothing but its run folder; `next_trial` hands it out again when it may go on.
    """

    def __init__(
        self,
        folder: StudyFolder,
        space: Space,
        seed: int,
        deadline: float | None = None,
        storage: BaseStorage | None = None,
        count_parameters: Callable[[Experiment], int] | None = None,
    ) -> None:
        """Open a search; `count_parameters`: of the model of an Experiment, for a limit on them before it trains."""
        self.count_parameters = count_parameters
        self.constraints = space.search.constraints
        self.folder, self.space, self.seed, self.deadline = folder, space, seed, deadline
        self.record = Record(folder)
        #: of all epochs, rising
        self._seconds = sorted(r.seconds for rows in self.record.epochs.values() for r in rows if r.epoch > 0)
        self.proposals = Proposals(folder, space, seed, storage)
        self.rule = rung_rule(space.search, space.experiment.training.epochs)
        cost = space.search.cost
        self.costs = None if cost is None else Costs(cost)
        baseline = baseline_pick(space)
        #: the trial of the default Experiment, where it is one of the trials
        self.baseline = None if baseline is None else Trial(self.experiment_of(baseline), seed).id
        self.running: dict[str, _Running] = {}
        self.paused: dict[str, _Running] = {}
        self.cut: dict[str, _Running] = {}
        #: whether a signal ended its run before its time
        self.interrupted = False
        self._replay()

    def next_trial(self) -> Trial | None:
        """The next trial to run, new or paused until now; None where there is none now (see `waits`)."""
        while not self.out_of_time(self._seconds_of_next()):
            if self._waiting:
                return self._start(self._waiting.pop(0))
            if (best := self._promotable()) is not None:
                return self._promote(best)
            if len(self.proposals) < self.space.search.trials:
                self._prepare(self.proposals.draw())
                continue
            if self.running or self.cut:
                return None
            # nothing more can come: the best of each rung goes on even where there are few
            if (best := self._promotable(last=True)) is not None:
                return self._promote(best)
            self._stop_paused()
            return None
        if not self.running:
            self.shelve()
        return None

    def waits(self) -> bool:
        """Whether there may be trials once others have reached their rungs."""
        return self.rule.pauses and bool(self.running) and not self.out_of_time()

    def may_go_on(self) -> bool:
        """Whether trials that are under way may begin another epoch: the time is not over."""
        return not self.out_of_time()

    def on_epoch(self, row: EpochRow) -> bool:
        """Record an epoch; True if the trial goes on."""
        running = self.running[row.trial]
        cost = self._cost(row)
        if self.record.add_epoch(row):
            if row.epoch > 0:
                insort(self._seconds, row.seconds)
            self.proposals.report(running.number, row.epoch, row.score, cost)
        running.broken = violation(self.constraints, row)
        if running.broken is not None:
            return False
        verdict = self._judge(row, cost)
        if row.epoch <= running.promoted_at:
            # it waited here already; a resumed training first yields the row of its last checkpoint again
            verdict = "run"
        running.verdict = "done" if row.done else verdict
        running.epoch = row.epoch
        return running.verdict == "run" and not self.out_of_time(row.seconds)

    def _cost(self, row: EpochRow) -> float | None:
        """A trial's second objective so far; none: the score is the only one."""
        return None if self.costs is None else self.costs.add(row)

    def _judge(self, row: EpochRow, cost: float | None) -> Verdict:
        verdict = self.rule.report(row.trial, row.epoch, row.score, *([] if cost is None else [cost]))
        # the rungs know the baseline's scores, but it is trained to its end: the winner is compared with it
        return "run" if row.trial == self.baseline else verdict

    def on_end(self, trial_id: str, error: str | None = None) -> TrialRow | None:
        """Record the end of a trial; None where it paused or was interrupted, and can be resumed."""
        running = self.running.pop(trial_id)
        if error is None and running.broken is not None:
            return self._end(running, "infeasible", running.broken)
        if error is None and running.verdict == "pause":
            self.paused[trial_id] = running
            return None
        if error is None and running.verdict == "run":
            self.cut[trial_id] = running
            return None
        outcome = "failed" if error is not None else "stopped" if running.verdict == "stop" else "complete"
        row = self._end(running, outcome, error)
        self._write_best()
        return row

    def out_of_time(self, seconds: float = 0.0) -> bool:
        """Whether the time budget is used up, or will be before an epoch of so many seconds ends."""
        return self.deadline is not None and time.monotonic() + seconds >= self.deadline

    def experiment_of(self, picked: Picked) -> Experiment:
        """The complete Experiment of picked values."""
        return apply_overrides(self.space.experiment, to_overrides(self.space, picked))

    def _seconds_of_next(self) -> float:
        """What the next epoch will take, as far as that matters: a trial's own last one, of a new trial the median."""
        if self.deadline is None:
            return 0.0
        trial = self._waiting[0].id if self._waiting else self._promotable()
        rows = self.record.epochs.get(trial or "")
        if rows:
            return rows[-1].seconds
        middle = len(self._seconds) // 2
        return (self._seconds[middle] + self._seconds[~middle]) / 2 if self._seconds else 0.0

    def _promotable(self, last: bool = False) -> str | None:
        return self.rule.promotable({trial: paused.epoch for trial, paused in self.paused.items()}, last)

    def _promote(self, trial_id: str) -> Trial:
        paused = self.paused.pop(trial_id)
        paused.promoted_at, paused.verdict = paused.epoch, "run"
        return self._start(paused)

    def _stop_paused(self) -> None:
        """Those that are still paused at the end of the study are not among the best of their rungs."""
        for trial_id in list(self.paused):
            self._end(self.paused.pop(trial_id), "stopped")
        self._write_best()

    def resumable(self) -> Container[str]:
        """Trials that have a row in the journal and can go on all the same: those for which the time was over."""
        return {*self.paused, *self.cut}

    def shelve(self) -> None:
        """The budget is used up and nothing runs: what is paused or cut short counts as stopped; it may be the winner.

        Optuna is not told: a resumed search lets them go on.
        """
        for running in (*self.paused.values(), *self.cut.values()):
            if running.id not in self.record.ended and self.record.epochs.get(running.id):
                self.proposals.shelve(running.number, True)
                self.record.end(running.id, running.number, running.trial.seed, "stopped", picked=running.picked)
        self._write_best()

    def _end(self, running: _Running, outcome: Outcome, error: str | None = None) -> TrialRow:
        seed, picked = running.trial.seed, running.picked
        row = self.record.end(running.id, running.number, seed, outcome, picked=picked, error=error)
        self.proposals.shelve(running.number, False)
        self.proposals.tell(running.number, outcome, row.score, row.out_of_memory)
        return row

    def _prepare(self, picked: Picked) -> None:
        """Line up the trial of picked values; values that exclude each other are a failed trial."""
        number = len(self.proposals)
        try:
            experiment = self.experiment_of(picked)
        except ConfigError as error:
            self.proposals.start(picked, trial=_invalid_id(number), seed=self.seed)
            self._refuse(number, picked, str(error))
            return
        running = _Running(number, picked, Trial(experiment, self.seed))
        # the same values again are worth a new seed, not the same numbers twice
        while self._is_taken(running.id):
            running = _Running(number, picked, Trial(experiment, running.trial.seed + 1))
        self.proposals.start(picked, trial=running.id, seed=running.trial.seed)
        broken = self._too_large(experiment)
        if broken is not None:
            self._end(running, "infeasible", broken)
        else:
            self._waiting.append(running)

    def _too_large(self, experiment: Experiment) -> str | None:
        """Why an Experiment is infeasible although nothing of it was trained."""
        if self.constraints.parameters is None or self.count_parameters is None:
            return None
        return too_large(self.constraints, self.count_parameters(experiment))

    def _is_taken(self, trial_id: str) -> bool:
        return (
            trial_id in self.record.ended
            or trial_id in self.running
            or trial_id in self.paused
            or trial_id in self.cut
            or any(trial_id == other.id for other in self._waiting)
        )

    def _refuse(self, number: int, picked: Picked, error: str) -> None:
        self.record.end(_invalid_id(number), number, self.seed, "failed", picked=picked, error=error)
        self.proposals.tell(number, "failed", None)

    def _start(self, running: _Running) -> Trial:
        self.running[running.id] = running
        return running.trial

    def _replay(self) -> None:
        """Rebuild the rungs, settle trials whose end was not told to Optuna, find those to go on with."""
        rows = [row for row in self.folder.epochs.read() if violation(self.constraints, row) is None]
        verdicts = {row.trial: self._judge(row, self._cost(row)) for row in rows}
        self._waiting: list[_Running] = []
        self._check_storage()
        self._write_lost_rows()
        for frozen in self.proposals.unfinished:
            ended = self.record.ended.get(frozen.user_attrs["trial"])
            if frozen.user_attrs.get(SHELVED):
                ended = None
                self.record.ended.pop(frozen.user_attrs["trial"], None)
            if ended is not None:
                self.proposals.tell(frozen.number, ended.outcome, ended.score, ended.out_of_memory)
            else:
                self._go_on(frozen.number, in_order(self.space, frozen), frozen.user_attrs, verdicts)
        self._best: str | None = None
        self._write_best()

    def _check_storage(self) -> None:
        """A trial is in the storage before it has a row: where it is not, the storage is that of an older day."""
        for frozen in (*self.proposals.unfinished, *self.proposals.finished):
            facts = frozen.user_attrs
            if not (isinstance(facts.get("trial"), str) and isinstance(facts.get("seed"), int)):
                raise StudyError(
                    f"{self.folder.optuna}: trial {frozen.number} has no id and seed; another program has written it: "
                    "restore the file, or start a new study by another --name"
                )
        lost = [row.number for row in self.record.ended.values() if row.number >= len(self.proposals)]
        if lost:
            raise StudyError(
                f"{self.folder.optuna}: has {len(self.proposals)} trials, and {self.folder.trials.path.name} has trial "
                f"{max(lost)}; restore it, or start a new study by another --name"
            )

    def _write_lost_rows(self) -> None:
        """A trial that has ended for Optuna and has no row, the journal being damaged, gets it from its epochs."""
        for frozen in self.proposals.finished:
            trial, outcome = frozen.user_attrs["trial"], outcome_of(frozen)
            if trial not in self.record.ended:
                lost = outcome in ("failed", "infeasible")
                error = "its row was lost, and with it the cause" if lost else None
                picked = in_order(self.space, frozen)
                self.record.end(trial, frozen.number, frozen.user_attrs["seed"], outcome, picked=picked, error=error)

    def _go_on(self, number: int, picked: Picked, facts: dict[str, Any], verdicts: dict[str, Verdict]) -> None:
        """Line up a trial that was under way, with the epochs that did not reach Optuna."""
        try:
            running = _Running(number, picked, Trial(self.experiment_of(picked), facts["seed"]))
        except ConfigError as error:
            self._refuse(number, picked, str(error))
            return
        rows = self.record.epochs.get(running.id, [])
        for i, row in enumerate(rows):
            cost = None if self.costs is None else cost_of(self.costs.objective, rows[: i + 1])
            self.proposals.report(number, row.epoch, row.score, cost)
        broken = [violation(self.constraints, row) for row in rows] or [self._too_large(running.trial.experiment)]
        if any(broken):
            self._end(running, "infeasible", next(filter(None, broken)))
        elif verdicts.get(running.id) == "pause" and not rows[-1].done:
            running.epoch = rows[-1].epoch
            self.paused[running.id] = running
        else:
            # its checkpoint may be older than its last row: it does not wait again at a rung that it has left
            running.promoted_at = rows[-1].epoch - 1 if rows else -1
            self._waiting.append(running)

    def _write_best(self) -> None:
        ranking = self.record.ranking()
        if ranking and ranking[0].trial != self._best:
            self._best = ranking[0].trial
            write_text(self.folder.best, export_text(self.space, ranking[0], 1, self.folder.name))


class _Running:
    """A trial under way or paused."""

    def __init__(self, number: int, picked: Picked, trial: Trial) -> None:
        self.number, self.picked, self.trial = number, picked, trial
        # a trial works its id out anew at every look
        self.id = trial.id
        self.verdict: Verdict | Literal["done"] = "run"
        self.epoch = 0
        self.promoted_at = -1
        #: the constraint that it broke
        self.broken: str | None = None


def _invalid_id(number: int) -> str:
    """The id in the journal of values that make no Experiment."""
    return f"invalid-{number}"


def export_text(space: Space, row: TrialRow, rank: int, study: str) -> str:
    """A trial's Experiment as a complete YAML file that says where it came from."""
    return experiment_text(
        apply_overrides(space.experiment, to_overrides(space, row.picked)),
        f"rank {rank} of study {study}: trial {row.number} ({row.trial}), {row.outcome}",
        f"validation mIoU {row.score:.4f} at epoch {row.best_epoch} of {row.epochs} run, seed {row.seed}",
        *(f"{name}: {value}" for name, value in row.picked.items()),
    )


def read_export(folder: StudyFolder, rank: int) -> str:
    """The Experiment of rank `rank` (from 1) of a search on disk, as `export_text` writes it.

    Raises:
        StudyError: the study has fewer ranked trials.
        ConfigError: the folder holds no search.
    """
    space = read_section(SearchSettings, folder.settings).space
    return export_text(space, ranked(folder, rank), rank, folder.name)


def ranked(folder: StudyFolder, rank: int) -> TrialRow:
    """The trial of rank `rank` (from 1) of a study on disk; with two objectives along the front, best score first.

    Raises:
        StudyError: the study has fewer ranked trials.
    """
    cost = _cost_objective(folder)
    ranking = ranking_of(Record(folder), cost)
    if rank > len(ranking):
        which = "with a score" if cost is None else "on its front"
        raise StudyError(
            f"--rank {rank}: study '{folder.name}' has {len(ranking)} trials {which}; give 1 to {len(ranking)}"
            if ranking
            else f"study '{folder.name}' has no trial with a score yet; let it go on first"
        )
    return ranking[rank - 1]


def _cost_objective(folder: StudyFolder) -> Objective | None:
    """The second objective of a search; none where there is none, and of a study of another kind."""
    kind = (load_yaml(folder.settings)[0] or {}).get("kind") if folder.settings.exists() else None
    return read_section(SearchSettings, folder.settings).space.search.cost if kind == "search" else None
