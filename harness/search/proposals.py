"""Where the next values come from: an Optuna study in SQLite, written as the search goes.

Ray's own OptunaSearch tells every stopped trial as COMPLETE and drops its last report; here stopped is PRUNED
at its last epoch, failed is FAIL, and every epoch is an intermediate value.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness.config import Space, is_active
from harness.config.space import ChoiceParameter, FloatParameter, Scalar, SearchConfig
from harness.store import StudyFolder

Outcome = Literal["complete", "stopped", "failed"]
_STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class Proposal(NamedTuple):
    """A trial's number in the study and the values picked for it, by parameter name."""

    number: int
    picked: dict[str, Scalar]


class Proposals:
    """The Optuna side of one search; reopening a folder goes on where it ended."""

    def __init__(self, folder: StudyFolder, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder.optuna}")
        self.study = optuna.create_study(
            study_name=folder.name, storage=storage, direction="maximize", load_if_exists=True
        )
        # a resumed sampler must not draw its first values again
        self.study.sampler = _sampler(space.search, seed + len(self.study.get_trials(deepcopy=False)))
        self.live: dict[int, optuna.Trial] = {
            t.number: optuna.Trial(self.study, t._trial_id) for t in self.unfinished()
        }

    def enqueue(self, picked: dict[str, Scalar]) -> None:
        """Make these values the next proposal."""
        self.study.enqueue_trial(picked, skip_if_exists=True)

    def ask(self) -> Proposal:
        """The next values to try."""
        trial = self.study.ask()
        self.live[trial.number] = trial
        return Proposal(trial.number, self.draw(trial.number))

    def draw(self, number: int) -> dict[str, Scalar]:
        """The values of a trial under way; those that it does not have yet are drawn."""
        picked: dict[str, Scalar] = {}
        for name, parameter in self.space.parameters.items():
            if is_active(parameter, picked):
                picked[name] = _suggest(self.live[number], name, parameter)
        return picked

    def note(self, number: int, **facts: Any) -> None:
        """Keep facts (id, seed) with a trial, for resuming and for the dashboard."""
        for key, value in facts.items():
            self.live[number].set_user_attr(key, value)

    def report(self, number: int, epoch: int, score: float) -> None:
        """Store an epoch's score; an epoch that is already there stays as it is."""
        trial = self.live[number]
        if epoch not in self.study.get_trials(deepcopy=False)[number].intermediate_values:
            trial.report(score, epoch)

    def tell(self, number: int, outcome: Outcome, score: float | None) -> None:
        """End a trial; `score` is its best epoch's."""
        value = score if outcome == "complete" and score is not None and math.isfinite(score) else None
        self.study.tell(self.live.pop(number), value, _STATES[outcome])

    def unfinished(self) -> list[FrozenTrial]:
        """Trials that were started and not ended."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def __len__(self) -> int:
        """Trials started so far."""
        return len(self.study.get_trials(deepcopy=False, states=(*_STATES.values(), TrialState.RUNNING)))


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


def _suggest(trial: optuna.Trial, name: str, parameter: Any) -> Scalar:
    if isinstance(parameter, ChoiceParameter):
        return trial.suggest_categorical(name, list(parameter.values()))
    suggest = trial.suggest_float if isinstance(parameter, FloatParameter) else trial.suggest_int
    return suggest(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _sampler(config: SearchConfig, seed: int) -> optuna.samplers.BaseSampler:
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if config.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)
