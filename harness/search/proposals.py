"""The Optuna side of a search: a study in SQLite, written as the search goes, and the values to try next.

Ray's own OptunaSearch tells every stopped trial as COMPLETE and drops its last report; here stopped is PRUNED
at its last epoch, failed is FAIL, and every epoch is an intermediate value. The storage is written, and read only
when a search is opened: what the samplers see is kept in memory (`shadow.py`), so no call grows with the study.
"""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.config import Space, is_active
from harness.config.space import ChoiceParameter, Scalar
from harness.search.strategies import value_source
from harness.search.values import Outcome, Picked, distributions
from harness.store import StudyFolder

_STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
_OUTCOMES = {state: outcome for outcome, state in _STATES.items()}

#: a fact of a stored trial: out of time, it has a row in the journal, and can still go on
SHELVED = "shelved"


class Proposals:
    """The proposals of one search; reopening a folder goes on where it ended."""

    def __init__(self, folder: StudyFolder, space: Space, seed: int, storage: BaseStorage | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.storage = optuna.storages.get_storage(storage or f"sqlite:///{folder.optuna}")
        study = optuna.create_study(
            study_name=folder.name, storage=self.storage, direction="maximize", load_if_exists=True
        )
        trials = study.get_trials(deepcopy=False)
        self._study_id = self.storage.get_study_id_from_name(folder.name)
        self._started = len(trials)
        self.source = value_source(space, seed, len(trials))
        self.live: dict[int, _Live] = {}
        self.unfinished: list[FrozenTrial] = [t for t in trials if t.state is TrialState.RUNNING]
        for trial in trials:
            self._replay(trial)

    def draw(self) -> Picked:
        """The values of the next trial: the default Experiment's for the first, where the space contains it."""
        default = default_pick(self.space) if self.space.search.default_first and not self._started else None
        if default is None:
            return self.source.draw(self._started)
        self.source.started(self._started, default)
        return default

    def start(self, picked: Picked, **facts: Any) -> int:
        """Store a trial of values just drawn, with facts (id, seed) for resuming; returns its number."""
        number = self._started
        trial = create_trial(
            state=TrialState.RUNNING, params=picked, distributions=distributions(self.space, picked), user_attrs=facts
        )
        # all in one transaction: a kill leaves a whole trial or none
        self.live[number] = _Live(self.storage.create_new_trial(self._study_id, template_trial=trial))
        self._started += 1
        return number

    def report(self, number: int, epoch: int, score: float) -> None:
        """Store an epoch's score; an epoch that is already there stays as it is."""
        live = self.live[number]
        if epoch not in live.scores:
            self.storage.set_trial_intermediate_value(live.trial_id, epoch, score)
            live.scores[epoch] = score
            self.source.reported(number, epoch, score)

    def shelve(self, number: int, on: bool) -> None:
        """Note that a trial's row in the journal is not its end (on), or that it goes on (off)."""
        live = self.live[number]
        if live.shelved != on:
            self.storage.set_trial_user_attr(live.trial_id, SHELVED, on)
            live.shelved = on

    def tell(self, number: int, outcome: Outcome, score: float | None) -> None:
        """End a trial; `score` is its best epoch's."""
        live = self.live.pop(number)
        # Optuna's own convention: the value of a pruned trial is its last report
        value = {"complete": score, "stopped": live.last, "failed": None}[outcome]
        values = [value] if value is not None and math.isfinite(value) else None
        self.storage.set_trial_state_values(live.trial_id, _STATES[outcome], values)
        self.source.ended(number, outcome, score)

    def __len__(self) -> int:
        """Trials started so far."""
        return self._started

    def _replay(self, trial: FrozenTrial) -> None:
        """Tell the source what happened before this search was opened."""
        self.source.started(trial.number, in_order(self.space, trial))
        for epoch, score in sorted(trial.intermediate_values.items()):
            self.source.reported(trial.number, epoch, score)
        if trial.state is TrialState.RUNNING:
            shelved = trial.user_attrs.get(SHELVED, False)
            self.live[trial.number] = _Live(trial._trial_id, trial.intermediate_values, shelved)
        else:
            self.source.ended(trial.number, _OUTCOMES[trial.state], trial.value)


class _Live:
    """A trial under way: its key in the storage, the scores that are there, and whether it is shelved."""

    def __init__(self, trial_id: int, scores: dict[int, float] | None = None, shelved: bool = False) -> None:
        self.trial_id, self.scores, self.shelved = trial_id, dict(scores or {}), shelved

    @property
    def last(self) -> float | None:
        return self.scores[max(self.scores)] if self.scores else None


def in_order(space: Space, trial: FrozenTrial) -> Picked:
    """A stored trial's values in the order of the space."""
    return {name: trial.params[name] for name in space.parameters if name in trial.params}


def default_pick(space: Space) -> dict[str, Scalar] | None:
    """The values that the default Experiment itself has; None where the space does not contain it."""
    picked: dict[str, Scalar] = {}
    for name, parameter in space.parameters.items():
        if is_active(parameter, picked):
            label = default_label(space, name)
            if label is None:
                return None
            picked[name] = label
    return picked


def default_label(space: Space, name: str) -> Scalar | None:
    """The label or value of one parameter in the default Experiment; None where the parameter cannot take it."""
    parameter = space.parameters[name]
    return _label_of(parameter, _value_at(space.experiment.model_dump(mode="json"), parameter.field))


def _value_at(values: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def _label_of(parameter: Any, value: Any) -> Scalar | None:
    if isinstance(parameter, ChoiceParameter):
        return next((label for label, choice in parameter.values().items() if _same(choice, value)), None)
    inside = isinstance(value, int | float) and parameter.low <= value <= parameter.high
    return value if inside else None


def _same(choice: Any, value: Any) -> bool:
    """Whether a choice, with its own defaults left out, is what the default Experiment holds."""
    if isinstance(choice, dict) and isinstance(value, dict):
        return all(key in value and _same(choice[key], value[key]) for key in choice)
    return choice == value
