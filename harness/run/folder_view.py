"""A study seen from outside: its files are read, nothing is written, and its driver is kept from nothing."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Generic, TypeVar

from optuna.distributions import json_to_distribution
from pydantic import ValidationError

from harness.config import Section
from harness.run.driver_lock import LOCK, is_driven
from harness.run.gpu_memory import GpuMeter
from harness.run.plan import read_asked
from harness.run.session import last_session
from harness.run.snapshot import Snapshot, Status, Tally
from harness.store import Journal, StudyFolder

R = TypeVar("R", bound=Section)

_NEW_TRIALS = """
    SELECT trials.number, facts.value_json, param_name, param_value, distribution_json
    FROM trials
    JOIN trial_user_attributes AS facts ON facts.trial_id = trials.trial_id AND facts.key = 'trial'
    LEFT JOIN trial_params ON trial_params.trial_id = trials.trial_id
    WHERE trials.number > ?
    ORDER BY trials.number, param_id
"""
_SHELVED = """
    SELECT COUNT(*) FROM trials
    JOIN trial_user_attributes AS facts ON facts.trial_id = trials.trial_id
    WHERE facts.key = 'shelved' AND facts.value_json = 'true' AND trials.state = 'RUNNING'
"""


class FolderView:
    """A study in its folder; every look reads what was written since the last."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder, self.gpus = folder, GpuMeter()
        self.settings_at: int | None = None
        self._read_settings()
        self.tally = Tally(self.asked.plan)
        self.epochs, self.ends = Tail(folder.epochs), Tail(folder.trials)
        self.drawn = -1
        self.looked = False

    def look(self) -> Snapshot:
        """The study now.

        Raises:
            StudyError: a journal holds something else than rows.
        """
        # asked first: whatever a driver wrote before it let go of its lock is then read too
        driven = is_driven(self.folder)
        self._read_settings()
        self.tally.plan = self.asked.plan
        self._read_trials()
        for row in self.epochs.new_rows():
            self.tally.epoch(row, live=self.looked)
        for row in self.ends.new_rows():
            self.tally.ended(row)
        self.looked = True
        self._find_waiting(driven)
        seconds = self._driven_for() if driven else None
        self._limit(seconds or 0.0)
        return self.tally.snapshot(self._status(driven), seconds, self.gpus.read())

    def _limit(self, seconds: float) -> None:
        """Tell the tally what a driver that started so many seconds ago may take; its preparation is left out."""
        budget, hours = self.session.asked.time_budget_s, self.session.asked.compute_hours
        self.tally.deadline = None if budget is None else time.monotonic() + budget - seconds
        self.tally.device_seconds = None if hours is None else 3600 * hours / self.session.resources.per_trial

    def _read_settings(self) -> None:
        written_at = self.folder.settings.stat().st_mtime_ns
        if written_at != self.settings_at:
            self.settings_at, self.asked = written_at, read_asked(self.folder)
            # written at every start, before the settings
            self.session = last_session(self.folder)

    def _read_trials(self) -> None:
        """Trials that started: from Optuna's storage, or by their run folders."""
        if self.tally.plan.search is not None:
            for number, trial_id, picked in _started(self.folder, self.drawn):
                self.tally.known(trial_id, number, picked)
                self.drawn = number
            return
        runs = self.folder.path / "runs"
        for path in runs.iterdir() if runs.is_dir() else ():
            if path.name not in self.tally.trials and (found := self.asked.trial(path.name)) is not None:
                self.tally.known(path.name, *found)

    def _find_waiting(self, driven: bool) -> None:
        """Tell the trials that wait at a rung from those that run: the driver lets the best go on at once."""
        under_way = [trial for trial in self.tally.trials.values() if trial.row is None]
        at_rung = {trial.trial: trial.epochs for trial in under_way if self.tally.is_at_rung(trial)}
        running = [trial for trial in under_way if trial.trial not in at_rung]
        for trial in running:
            trial.state = "running" if driven else "waiting"
        while driven and (best := self.tally.rule.promotable(at_rung)) is not None:
            self._goes_on(at_rung, best)
            running.append(self.tally.trials[best])
        all_started = len(self.tally.trials) >= (self.tally.plan.planned or 0)
        if driven and not running and all_started:
            best = self.tally.rule.promotable(at_rung, last=True)
            if best is not None:
                self._goes_on(at_rung, best)
        for trial_id in at_rung:
            self.tally.trials[trial_id].state = "waiting"

    def _goes_on(self, at_rung: dict[str, int], trial_id: str) -> None:
        del at_rung[trial_id]
        self.tally.trials[trial_id].state = "running"

    def _status(self, driven: bool) -> Status:
        if driven:
            return "running"
        plan, trials = self.tally.plan, self.tally.trials.values()
        all_started = plan.planned is None or plan.at_most or len(trials) >= plan.planned
        all_ended = all(trial.row is not None for trial in trials) and not _any_shelved(self.folder)
        return "finished" if trials and all_started and all_ended else "stopped"

    def _driven_for(self) -> float | None:
        try:
            return time.time() - (self.folder.path / LOCK).stat().st_mtime
        except FileNotFoundError:
            # it ended since
            return None


class Tail(Generic[R]):
    """A journal read bit by bit."""

    def __init__(self, journal: Journal[R]) -> None:
        self.journal, self.read_to = journal, 0

    def new_rows(self) -> list[R]:
        """The whole rows written since the last call.

        Raises:
            StudyError: a line is not a row.
        """
        if not self.journal.path.exists():
            return []
        with open(self.journal.path, "rb") as file:
            file.seek(self.read_to)
            lines = file.read().split(b"\n")[:-1]
        try:
            rows = [self.journal.kind.model_validate_json(line) for line in lines]
        except ValidationError:
            # reading it whole says which line, and what to do
            return self.journal.read()
        self.read_to += sum(len(line) + 1 for line in lines)
        return rows


def _started(folder: StudyFolder, after: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, id and picked values of the trials after a number, in order."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for number, trial_id, name, value, distribution in _ask(folder, _NEW_TRIALS, after):
        picked = found.setdefault(number, (json.loads(trial_id), {}))[1]
        if name is not None:
            picked[name] = json_to_distribution(distribution).to_external_repr(value)
    for number, (trial_id, picked) in found.items():
        yield number, trial_id, picked


def _any_shelved(folder: StudyFolder) -> bool:
    """Whether trials that have a row can go on all the same: those for which the time was over."""
    return any(count for (count,) in _ask(folder, _SHELVED))


def _ask(folder: StudyFolder, query: str, *values: int) -> list[tuple[Any, ...]]:
    """What Optuna's storage answers; nothing where it is not there, or is being written: then the next look asks."""
    if not folder.optuna.exists():
        return []
    try:
        # plain SQL: Optuna itself would read every trial of the study, and make tables where there are none
        with closing(sqlite3.connect(f"{folder.optuna.resolve().as_uri()}?mode=ro", uri=True, timeout=0.2)) as storage:
            return storage.execute(query, values).fetchall()
    except sqlite3.OperationalError:
        return []
