"""The Space: which fields of an Experiment may vary, over what, under which conditions."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from harness.config.base import Name, Section
from harness.config.experiment import Experiment
from harness.config.overrides import apply_overrides
from harness.config.validate import did_you_mean
from harness.errors import ConfigError

Scalar = bool | int | float | str
_WHEN = Field({}, description="other parameter to its labels or values under which this one exists")


class Prior(Section):
    """Where an expert expects the best value, and how surely."""

    centre: Scalar = Field(description="the expected value, or a choice's label; in the parameter's own unit")
    confidence: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the random draws that come from near the centre, 0-1; the others are uniform, so that "
        "a wrong centre is overcome",
    )


class _Parameter(Section):
    field: str = Field(min_length=1, description="dotted path into the Experiment")
    when: dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1)]] = _WHEN
    prior: Prior | None = Field(None, description="where the best value is expected; none: anywhere")


class FloatParameter(_Parameter):
    """A real number between low and high."""

    kind: Literal["float"] = "float"
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="drawn on a logarithmic scale; needs low above 0")
    step: float | None = Field(None, gt=0, description="grid from low; none: continuous")


class IntParameter(_Parameter):
    """A whole number between low and high, both included."""

    kind: Literal["int"] = "int"
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")
    log: bool = Field(False, description="drawn on a logarithmic scale; needs low above 0")
    step: int = Field(1, ge=1, description="grid from low")


class ChoiceParameter(_Parameter):
    """One of a list of values, or one of a mapping from label to value (a list or a whole section)."""

    kind: Literal["choice"] = "choice"
    choices: tuple[Scalar, ...] | dict[str, JsonValue] = Field(description="values, or label to value")

    def values(self) -> dict[Scalar, Any]:
        """Label to value; a plain value is its own label."""
        return dict(self.choices) if isinstance(self.choices, dict) else {c: c for c in self.choices}


Parameter = Annotated[FloatParameter | IntParameter | ChoiceParameter, Field(discriminator="kind")]


#: where values come from + what happens at a rung:
#: promote         a model per rung   + promotion ASHA: trials pause, the best go on
#: random_promote  random             + promotion ASHA
#: model_asha      a model per rung   + stopping ASHA
#: asha            TPE over all trials + stopping ASHA, the usual set-up
#: gp_asha         a Gaussian process over all trials + stopping ASHA; slow from some hundred trials on
#: random_asha     random             + stopping ASHA
#: tpe, random     every trial runs to its end
Strategy = Literal["promote", "random_promote", "model_asha", "asha", "gp_asha", "random_asha", "tpe", "random"]


class Limit(Section):
    """The largest value that is allowed."""

    max: float = Field(gt=0, description="largest value allowed, in the unit of what is limited")


class Constraints(Section):
    """What every trial must keep to; one that does not is infeasible: it never wins, and the model avoids its like."""

    parameters: Limit | None = Field(
        None, description="parameters of the whole model, trained or not; known before training; none: no limit"
    )
    ms_per_image: Limit | None = Field(
        None,
        description="training time of the first epoch per image seen, waiting for data included, milliseconds (not "
        "the time of inference); none: no limit",
    )
    peak_memory_mb: Limit | None = Field(
        None, description="peak allocated GPU memory of an epoch, MB; without a GPU there is none; none: no limit"
    )


#: what a search is after: the score, as high as possible; the others as low as possible, `ms_per_image` being the
#: training time per image seen
Objective = Literal["score", "ms_per_image", "parameters"]
#: strategies that take two objectives
_WITH_TWO = ("promote", "random_promote", "model_asha", "random_asha", "random")


class SearchConfig(Section):
    """How the space is searched; the command line may override it."""

    trials: int = Field(32, ge=1, description="trials to start")
    strategy: Strategy = Field("promote", description="where values come from, and what happens at a rung")
    default_first: bool = Field(
        True,
        description="trial 0 is the default Experiment, where the space contains it; no rung ends it: it is what the "
        "others are compared with",
    )
    enqueue: tuple[Annotated[dict[Name, Scalar], Field(min_length=1)], ...] = Field(
        (),
        description="recipes tried right after the default Experiment: parameter name to value or label; what one "
        "leaves out is the default Experiment's, or drawn where the space does not contain that",
    )
    constraints: Constraints = Field(Constraints(), description="what every trial must keep to; none given: nothing")
    objectives: tuple[Objective, ...] = Field(
        ("score",),
        min_length=1,
        max_length=2,
        description="score (0-1) alone, or score and one that is minimised: ms_per_image (training, milliseconds) or "
        "parameters (of the whole model); with two the result is the front of trials that no other beats",
    )
    grace_epochs: int = Field(1, ge=1, description="first rung: no trial is stopped or paused earlier, epochs")
    reduction_factor: int = Field(3, ge=2, description="the best 1/factor of a rung go on")

    @model_validator(mode="after")
    def _objectives_fit(self) -> SearchConfig:
        if self.objectives[0] != "score" or self.objectives[1:] == ("score",):
            raise ValueError(
                f"objectives {', '.join(self.objectives)}: the first is score, the second ms_per_image or parameters"
            )
        if self.cost is not None and self.strategy not in _WITH_TWO:
            raise ValueError(
                f"strategy '{self.strategy}' knows one objective, not {', '.join(self.objectives)}; "
                f"use one of {', '.join(_WITH_TWO)}"
            )
        return self

    @property
    def cost(self) -> Objective | None:
        """The objective that is minimised beside the score; none: the score is the only one."""
        return self.objectives[1] if len(self.objectives) > 1 else None


class Space(Section):
    """A base Experiment, the parameters that vary, and how to search them."""

    experiment: Experiment = Field(Experiment(), description="the default Experiment that the parameters change")
    search: SearchConfig = Field(SearchConfig(), description="how the space is searched")
    parameters: dict[Name, Parameter] = Field(min_length=1, description="short name to parameter")

    @model_validator(mode="after")
    def _consistent(self) -> Space:
        names = list(self.parameters)
        for index, (name, parameter) in enumerate(self.parameters.items()):
            _check_range(name, parameter)
            _check_prior(name, parameter)
            for other, labels in parameter.when.items():
                if other not in names[:index]:
                    raise ValueError(
                        f"parameter '{name}' depends on '{other}', which must be a parameter above it; "
                        f"above it are: {', '.join(names[:index]) or 'none'}"
                    )
                _check_labels(name, other, labels, self.parameters[other])
            for above in names[:index]:
                _check_not_overwritten(above, self.parameters[above], name, parameter)
        for number, recipe in enumerate(self.search.enqueue, 1):
            _check_recipe(f"search.enqueue: recipe {number}", recipe, self.parameters)
        return self


def _check_range(name: str, parameter: Parameter) -> None:
    if isinstance(parameter, ChoiceParameter):
        if len(parameter.choices) < 2:
            raise ValueError(f"parameter '{name}' has {len(parameter.choices)} choices; it needs two or more")
        if len(parameter.values()) < len(parameter.choices):
            raise ValueError(f"parameter '{name}' has a choice twice; keep one of them")
        return
    if not parameter.low < parameter.high:
        raise ValueError(f"parameter '{name}': low {parameter.low} must be below high {parameter.high}")
    if parameter.log and parameter.low <= 0:
        raise ValueError(f"parameter '{name}': a logarithmic scale needs low above 0, not {parameter.low}")
    if parameter.log and parameter.step != type(parameter).model_fields["step"].default:
        raise ValueError(f"parameter '{name}': log and step exclude each other; remove one")


def _check_prior(name: str, parameter: Parameter) -> None:
    if parameter.prior is not None:
        problem = value_problem(parameter, parameter.prior.centre)
        if problem:
            raise ValueError(f"parameter '{name}': prior.centre {problem}")


def value_problem(parameter: Parameter, value: Scalar) -> str | None:
    """Why a parameter cannot take a value or label, and what it takes; none: it can."""
    if isinstance(parameter, ChoiceParameter):
        # True == 1, and 1 == 1.0: a label is its type too
        known = any(label == value and type(label) is type(value) for label in parameter.values())
        return None if known else f"{value!r} is no choice of it; it has: {', '.join(map(str, parameter.values()))}"
    if isinstance(value, bool | str):
        return f"{value!r} is no number; give one from {parameter.low} to {parameter.high}"
    if isinstance(parameter, IntParameter) and not isinstance(value, int):
        return f"{value!r} is no whole number; give one from {parameter.low} to {parameter.high}"
    if not parameter.low <= value <= parameter.high:
        return f"{value!r} lies outside its range; give one from {parameter.low} to {parameter.high}"
    if parameter.step is None or parameter.log:
        return None
    steps = (value - parameter.low) / parameter.step
    # as Optuna has it
    if abs(steps - round(steps)) < 1e-8:
        return None
    below, above = (parameter.low + step * parameter.step for step in (math.floor(steps), math.floor(steps) + 1))
    return f"{value!r} lies between two steps; give {below:g}" + (f" or {above:g}" if above <= parameter.high else "")


def _check_labels(name: str, other: str, labels: tuple[Scalar, ...], parameter: Parameter) -> None:
    if not isinstance(parameter, ChoiceParameter):
        raise ValueError(f"parameter '{name}' depends on '{other}', which is no choice; only choices can be conditions")
    unknown = [label for label in labels if label not in parameter.values()]
    if unknown:
        known = ", ".join(map(str, parameter.values()))
        raise ValueError(f"parameter '{name}': '{other}' never takes {unknown}; it takes: {known}")


def _check_recipe(what: str, recipe: dict[str, Scalar], parameters: dict[str, Parameter]) -> None:
    for name, value in recipe.items():
        if name not in parameters:
            raise ValueError(f"{what}: there is no parameter '{name}'{did_you_mean(name, parameters)}")
        parameter = parameters[name]
        problem = value_problem(parameter, value)
        if problem:
            raise ValueError(f"{what}: {name} {problem}")
        for other, labels in parameter.when.items():
            if recipe.get(other) not in labels:
                raise ValueError(
                    f"{what}: {name} exists only where {other} is {' or '.join(map(str, labels))}; "
                    f"give {other} too, or leave {name} out"
                )


def _check_not_overwritten(above: str, first: Parameter, name: str, second: Parameter) -> None:
    """Overrides are applied in order: what `first` sets must not be lost when `second` sets the same, or more."""
    never_together = any(not set(first.when[o]) & set(second.when[o]) for o in first.when.keys() & second.when.keys())
    if not f"{first.field}.".startswith(f"{second.field}.") or never_together:
        return
    same = first.field == second.field
    fix = "remove one, or give them conditions that exclude each other" if same else "put it above"
    raise ValueError(f"parameter '{name}' sets {second.field} and undoes '{above}', which sets {first.field}; {fix}")


def to_overrides(space: Space, picked: dict[str, Scalar]) -> dict[str, Any]:
    """Labels and numbers by parameter name as overrides by dotted path, in the order of the space.

    Raises:
        ConfigError: a label that its parameter does not have.
    """
    return {p.field: _value_of(name, p, picked[name]) for name, p in space.parameters.items() if name in picked}


def _value_of(name: str, parameter: Parameter, picked: Scalar) -> Any:
    if not isinstance(parameter, ChoiceParameter):
        return picked
    for label, value in parameter.values().items():
        if label == picked:
            return value
    raise ConfigError(f"parameter '{name}' has no choice {picked!r}; it has: {', '.join(map(str, parameter.values()))}")


def is_active(parameter: Parameter, picked: dict[str, Scalar]) -> bool:
    """Whether the conditions of a parameter hold, given the parameters above it."""
    return all(picked.get(other) in labels for other, labels in parameter.when.items())


def check_space(space: Space) -> None:
    """Try every choice and both ends of every range once against the default Experiment.

    Raises:
        ConfigError: a field that does not exist or a value that it cannot take, before any trial starts.
    """
    for name in space.parameters:
        for value in _ends(space.parameters[name]):
            picked = _reach(space, name, value)
            try:
                apply_overrides(space.experiment, to_overrides(space, picked))
            except ConfigError as error:
                raise ConfigError(f"parameter '{name}' at {value!r}: {error}") from error
    for number, recipe in enumerate(space.search.enqueue, 1):
        try:
            apply_overrides(space.experiment, to_overrides(space, recipe))
        except ConfigError as error:
            raise ConfigError(f"search.enqueue: recipe {number}: {error}") from error


def _ends(parameter: Parameter) -> list[Scalar]:
    if isinstance(parameter, ChoiceParameter):
        return list(parameter.values())
    return [parameter.low, parameter.high]


def _reach(space: Space, name: str, value: Scalar) -> dict[str, Scalar]:
    """Values for a parameter and for all that its conditions ask for."""
    picked: dict[str, Scalar] = {}
    for other, labels in space.parameters[name].when.items():
        picked |= _reach(space, other, labels[0])
    return picked | {name: value}
