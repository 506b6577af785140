"""The Optuna side of a search: a study in SQLite, written as the search goes, and the values to try next.

Ray's own OptunaSearch tells every stopped trial as COMPLETE and drops its last report; here stopped is PRUNED
at its last epoch, failed is FAIL, and every epoch is an intermediate value. The storage is written, and read only
when a search is opened: what the samplers see is kept in memory (`shadow.py`), so no call grows with the study.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError, StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from harness.config import Space
from harness.config.space import ChoiceParameter, Parameter
from harness.errors import DiskFull, StorageError, StudyError, first_line
from harness.search.enqueue import first_picks
from harness.search.strategies import value_source
from harness.search.values import Outcome, Picked, distributions
from harness.store import StudyFolder, full_disk, unwritable

_STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
_OUTCOMES = {state: outcome for outcome, state in _STATES.items()}
_STATES["infeasible"] = TrialState.FAIL

#: where `optuna.Trial.set_constraint` keeps a constraint `memory`; above 0 it is violated
_OUT_OF_MEMORY = "constraints:memory"
#: the same of a constraint of the search
_OVER_LIMIT = "constraints:limit"

#: a fact of a stored trial: out of time, it has a row in the journal, and can still go on
SHELVED = "shelved"
#: another: the second objective by the epochs so far
COST = "cost"

#: what SQLite says where not its file is at fault but the disk, or another process
_REFUSALS = ("disk is full", "disk I/O error", "database is locked", "readonly database")


class Proposals:
    """The proposals of one search; reopening a folder goes on where it ended."""

    def __init__(self, folder: StudyFolder, space: Space, seed: int, storage: BaseStorage | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.path = space, folder.path
        with _readable(folder):
            self.storage = optuna.storages.get_storage(storage or _address(folder))
            study = optuna.create_study(
                study_name=folder.name, storage=self.storage, direction="maximize", load_if_exists=True
            )
            trials = study.get_trials(deepcopy=False)
            self._study_id = self.storage.get_study_id_from_name(folder.name)
        _check_ours(folder, space, trials)
        self._started = len(trials)
        self.source = value_source(space, seed, len(trials))
        self._first = first_picks(space, seed)
        self.live: dict[int, _Live] = {}
        self.unfinished: list[FrozenTrial] = [t for t in trials if t.state is TrialState.RUNNING]
        self.finished: list[FrozenTrial] = [t for t in trials if t.state is not TrialState.RUNNING]
        for trial in trials:
            self._replay(trial)

    def draw(self) -> Picked:
        """The values of the next trial: the default Experiment's, the recipes that were asked for, then drawn ones."""
        if self._started >= len(self._first):
            return self.source.draw(self._started)
        picked = self._first[self._started]
        self.source.started(self._started, picked)
        return picked

    def start(self, picked: Picked, **facts: Any) -> int:
        """Store a trial of values just drawn, with facts (id, seed) for resuming; returns its number."""
        number = self._started
        trial = create_trial(
            state=TrialState.RUNNING, params=picked, distributions=distributions(self.space, picked), user_attrs=facts
        )
        with self._room():
            # all in one transaction: a kill leaves a whole trial or none
            self.live[number] = _Live(self.storage.create_new_trial(self._study_id, template_trial=trial))
        self._started += 1
        return number

    def report(self, number: int, epoch: int, score: float, cost: float | None = None) -> None:
        """Store an epoch's score, and the second objective so far; an epoch that is already there stays as it is."""
        live = self.live[number]
        if epoch not in live.scores:
            with self._room():
                self.storage.set_trial_intermediate_value(live.trial_id, epoch, score)
            live.scores[epoch] = score
            if cost is not None:
                with self._room():
                    self.storage.set_trial_user_attr(live.trial_id, COST, cost)
                self.source.costs(number, cost)
            self.source.reported(number, epoch, score)

    def shelve(self, number: int, on: bool) -> None:
        """Note that a trial's row in the journal is not its end (on), or that it goes on (off)."""
        live = self.live[number]
        if live.shelved != on:
            with self._room():
                self.storage.set_trial_user_attr(live.trial_id, SHELVED, on)
            live.shelved = on

    def tell(self, number: int, outcome: Outcome, score: float | None, infeasible: bool = False) -> None:
        """End a trial; `score` is its best epoch's; `infeasible`: it failed for lack of memory."""
        live = self.live.pop(number)
        # Optuna's own convention: the value of a pruned trial is its last report
        value = {"complete": score, "stopped": live.last}.get(outcome)
        values = [value] if value is not None and math.isfinite(value) else None
        with self._room():
            if infeasible or outcome == "infeasible":
                kept = _OUT_OF_MEMORY if infeasible else _OVER_LIMIT
                self.storage.set_trial_system_attr(live.trial_id, kept, 1.0)
            self.storage.set_trial_state_values(live.trial_id, _STATES[outcome], values)
        self._tell_source(number, outcome, score, infeasible)

    def __len__(self) -> int:
        """Trials started so far."""
        return self._started

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Say which folder cannot be written, and why, where SQLite does not say more than what it tried."""
        try:
            yield
        except StorageInternalError as error:
            raise _refusal(self.path, _said(error)) from error

    def _replay(self, trial: FrozenTrial) -> None:
        """Tell the source what happened before this search was opened."""
        self.source.started(trial.number, in_order(self.space, trial))
        if COST in trial.user_attrs:
            self.source.costs(trial.number, trial.user_attrs[COST])
        for epoch, score in sorted(trial.intermediate_values.items()):
            self.source.reported(trial.number, epoch, score)
        if trial.state is TrialState.RUNNING:
            shelved = trial.user_attrs.get(SHELVED, False)
            self.live[trial.number] = _Live(trial._trial_id, trial.intermediate_values, shelved)
        else:
            self._tell_source(trial.number, outcome_of(trial), trial.value, _OUT_OF_MEMORY in trial.system_attrs)

    def _tell_source(self, number: int, outcome: Outcome, score: float | None, infeasible: bool) -> None:
        if infeasible or outcome == "infeasible":
            self.source.infeasible(number)
        else:
            self.source.ended(number, outcome, score)


def _said(error: BaseException) -> str:
    """What SQLite said, as "(sqlite3.OperationalError) database is locked", without its statement."""
    return first_line(error.__cause__ or error)


def _refusal(folder: Path, why: str) -> StorageError:
    if "disk is full" in why:
        return DiskFull(full_disk(folder, "SQLite: database or disk is full"))
    return StorageError(unwritable(folder, f"SQLite: {why}"))


@contextmanager
def _readable(folder: StudyFolder) -> Iterator[None]:
    """Say which file is damaged, where the storage of a study cannot be opened, or which folder refuses it.

    Raises:
        StudyError: the file is damaged, or another program's.
        StorageError: its disk is full or refuses to be written.
    """
    try:
        yield
    except (SQLAlchemyError, OptunaError, RuntimeError, ValueError, KeyError, AssertionError) as error:
        if any(words in _said(error) for words in _REFUSALS):
            raise _refusal(folder.path, _said(error)) from error
        raise StudyError(
            f"{folder.optuna}: damaged, or no storage of this study ({first_line(error)}); "
            "restore it, or start a new study by another --name"
        ) from error


def _check_ours(folder: StudyFolder, space: Space, trials: list[FrozenTrial]) -> None:
    for trial in trials:
        known = trial.state is TrialState.RUNNING or trial.state in _OUTCOMES
        if not known or not all(_fits(space.parameters[n], v) for n, v in in_order(space, trial).items()):
            raise StudyError(
                f"{folder.optuna}: trial {trial.number} is none of this study's; restore the file, or start a new "
                "study by another --name"
            )


def _fits(parameter: Parameter, value: Any) -> bool:
    return value in parameter.values() if isinstance(parameter, ChoiceParameter) else isinstance(value, int | float)


def _address(folder: StudyFolder) -> str:
    # escaped: after a ? in the folder's name another file would be opened
    return URL.create("sqlite", database=str(folder.optuna)).render_as_string()


class _Live:
    """A trial under way: its key in the storage, the scores that are there, and whether it is shelved."""

    def __init__(self, trial_id: int, scores: dict[int, float] | None = None, shelved: bool = False) -> None:
        self.trial_id, self.scores, self.shelved = trial_id, dict(scores or {}), shelved

    @property
    def last(self) -> float | None:
        return self.scores[max(self.scores)] if self.scores else None


def outcome_of(trial: FrozenTrial) -> Outcome:
    """How a finished trial of the storage ended."""
    return "infeasible" if _OVER_LIMIT in trial.system_attrs else _OUTCOMES[trial.state]


def in_order(space: Space, trial: FrozenTrial) -> Picked:
    """A stored trial's values in the order of the space."""
    return {name: trial.params[name] for name in space.parameters if name in trial.params}
