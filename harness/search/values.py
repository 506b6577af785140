"""Values of a Space's parameters in Optuna's terms, and where the next ones come from."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from harness.config import Space, is_active
from harness.config.space import ChoiceParameter, FloatParameter, Parameter, Scalar
from harness.search.prior import near
from harness.store.rows import Outcome

Picked = dict[str, Scalar]


class Source(Protocol):
    """Where the next values come from; it is told everything that happens to every trial."""

    def draw(self, number: int) -> Picked:
        """The values of a new trial."""

    def started(self, number: int, picked: Picked) -> None:
        """A trial has values that were not drawn here: the default Experiment's, or those of a resumed study."""

    def reported(self, number: int, epoch: int, score: float) -> None:
        """A trial finished an epoch."""

    def costs(self, number: int, cost: float) -> None:
        """A trial's second objective so far, where there are two."""

    def ended(self, number: int, outcome: Outcome, score: float | None) -> None:
        """A trial ended; `score` is its best epoch's."""

    def infeasible(self, number: int) -> None:
        """A trial's values need more memory than there is, or break a constraint; whatever it scored counts no more."""


class RandomValues:
    """Every value drawn alone."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def draw(self, number: int) -> Picked:
        """Values that depend on nothing but the seed and the trial's number."""
        return random_pick(self.space, draws_of(self.seed, number))

    def started(self, number: int, picked: Picked) -> None:
        """Nothing is learnt."""

    def reported(self, number: int, epoch: int, score: float) -> None:
        """Nothing is learnt."""

    def costs(self, number: int, cost: float) -> None:
        """Nothing is learnt."""

    def ended(self, number: int, outcome: Outcome, score: float | None) -> None:
        """Nothing is learnt."""

    def infeasible(self, number: int) -> None:
        """Nothing is learnt."""


def draws_of(seed: int, number: int) -> np.random.Generator:
    """The random numbers of one trial's values: a search that was interrupted draws what it would have drawn."""
    return np.random.default_rng((seed, number))


def random_pick(space: Space, rng: np.random.Generator) -> Picked:
    """Values drawn independently, each uniform on its parameter's own scale or, where it has one, by its prior."""
    picked: Picked = {}
    for name, parameter in space.parameters.items():
        if is_active(parameter, picked):
            picked[name] = at_position(parameter, random_position(parameter, rng.random()))
    return picked


def random_position(parameter: Parameter, uniform: float) -> float:
    """A uniform number in 0-1 as a position: with a prior, `confidence` of them lie near its centre."""
    if parameter.prior is None:
        return uniform
    confidence = parameter.prior.confidence
    if uniform >= confidence:
        return (uniform - confidence) / (1 - confidence)
    centre = centre_of(parameter)
    return centre if isinstance(parameter, ChoiceParameter) else near(centre, uniform / confidence)


def centre_of(parameter: Parameter) -> float:
    """The position of a prior's centre; of a step of a grid, the middle of its share."""
    centre = position(parameter, parameter.prior.centre)
    if isinstance(parameter, ChoiceParameter) or parameter.log or parameter.step is None:
        return centre
    steps = math.floor((parameter.high - parameter.low) / parameter.step + 1e-9)
    step = min(round(centre * (parameter.high - parameter.low) / parameter.step), steps)
    return (step + 0.5) / (steps + 1)


def suggest_all(space: Space, trial: optuna.Trial) -> Picked:
    """Draw every parameter that the ones above it make active."""
    picked: Picked = {}
    for name, parameter in space.parameters.items():
        if is_active(parameter, picked):
            picked[name] = _suggest(trial, name, parameter)
    return picked


def distributions(space: Space, picked: Picked) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each parameter that was picked."""
    return {name: _distribution(space.parameters[name]) for name in picked}


def position(parameter: Parameter, value: Scalar) -> float:
    """Where a value lies in its parameter's range or list, 0-1, on the parameter's own scale."""
    if isinstance(parameter, ChoiceParameter):
        labels = list(parameter.values())
        return labels.index(value) / (len(labels) - 1)
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def at_position(parameter: Parameter, at: float) -> Scalar:
    """The value at a position 0-1: each label, and each step of a grid, has an equal share of it."""
    if isinstance(parameter, ChoiceParameter):
        labels = list(parameter.values())
        return labels[min(int(at * len(labels)), len(labels) - 1)]
    low, high = parameter.low, parameter.high
    if parameter.log:
        value = math.exp(math.log(low) + at * (math.log(high) - math.log(low)))
    elif parameter.step is not None:
        steps = math.floor((high - low) / parameter.step + 1e-9)
        value = low + min(int(at * (steps + 1)), steps) * parameter.step
    else:
        value = low + at * (high - low)
    value = min(max(value, low), high)
    return value if isinstance(parameter, FloatParameter) else round(value)


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Scalar:
    if isinstance(parameter, ChoiceParameter):
        return trial.suggest_categorical(name, list(parameter.values()))
    suggest = trial.suggest_float if isinstance(parameter, FloatParameter) else trial.suggest_int
    return suggest(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, ChoiceParameter):
        return CategoricalDistribution(list(parameter.values()))
    kind = FloatDistribution if isinstance(parameter, FloatParameter) else IntDistribution
    return kind(parameter.low, parameter.high, step=parameter.step, log=parameter.log)
