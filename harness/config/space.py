"""The Space: which fields of an Experiment may vary, over what, under which conditions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from harness.config.base import Section
from harness.config.experiment import Experiment
from harness.config.overrides import apply_overrides
from harness.errors import ConfigError

Scalar = bool | int | float | str
_ROLE = Field(
    "scientific",
    description="scientific: what the study asks about; nuisance: tuned so that the comparison is fair "
    "(the words of the Tuning Playbook)",
)
_WHEN = Field({}, description="other parameter to its labels or values under which this one exists")


class _Parameter(Section):
    field: str = Field(min_length=1, description="dotted path into the Experiment")
    role: Literal["scientific", "nuisance"] = _ROLE
    when: dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1)]] = _WHEN


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


class SearchConfig(Section):
    """How the space is searched; the command line may override it."""

    trials: int = Field(32, ge=1, description="trials to start")
    strategy: Strategy = Field("promote", description="where values come from, and what happens at a rung")
    default_first: bool = Field(True, description="trial 0 is the default Experiment, where the space contains it")
    grace_epochs: int = Field(1, ge=1, description="first rung: no trial is stopped or paused earlier, epochs")
    reduction_factor: int = Field(3, ge=2, description="the best 1/factor of a rung go on")


class Space(Section):
    """A base Experiment, the parameters that vary, and how to search them."""

    experiment: Experiment = Field(Experiment(), description="the default Experiment that the parameters change")
    search: SearchConfig = Field(SearchConfig(), description="how the space is searched")
    parameters: dict[str, Parameter] = Field(min_length=1, description="short name to parameter")

    @model_validator(mode="after")
    def _consistent(self) -> Space:
        names = list(self.parameters)
        for index, (name, parameter) in enumerate(self.parameters.items()):
            _check_range(name, parameter)
            for other, labels in parameter.when.items():
                if other not in names[:index]:
                    raise ValueError(
                        f"parameter '{name}' depends on '{other}', which must be a parameter above it; "
                        f"above it are: {', '.join(names[:index]) or 'none'}"
                    )
                _check_labels(name, other, labels, self.parameters[other])
            for above in names[:index]:
                _check_not_overwritten(above, self.parameters[above], name, parameter)
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


def _check_labels(name: str, other: str, labels: tuple[Scalar, ...], parameter: Parameter) -> None:
    if not isinstance(parameter, ChoiceParameter):
        raise ValueError(f"parameter '{name}' depends on '{other}', which is no choice; only choices can be conditions")
    unknown = [label for label in labels if label not in parameter.values()]
    if unknown:
        known = ", ".join(map(str, parameter.values()))
        raise ValueError(f"parameter '{name}': '{other}' never takes {unknown}; it takes: {known}")


def _check_not_overwritten(above: str, first: Parameter, name: str, second: Parameter) -> None:
    """Overrides are applied in order: what `first` sets must not be lost when `second` sets the same, or more."""
    never_together = any(not set(first.when[o]) & set(second.when[o]) for o in first.when.keys() & second.when.keys())
    if not f"{first.field}.".startswith(f"{second.field}.") or never_together:
        return
    same = first.field == second.field
    fix = "remove one, or give them conditions that exclude each other" if same else "put it above"
    raise ValueError(f"parameter '{name}' sets {second.field} and undoes '{above}', which sets {first.field}; {fix}")


def to_overrides(space: Space, picked: dict[str, Scalar]) -> dict[str, Any]:
    """Labels and numbers by parameter name as overrides by dotted path, in the order of the space."""
    overrides = {}
    for name, parameter in space.parameters.items():
        if name in picked:
            value = picked[name]
            overrides[parameter.field] = parameter.values()[value] if isinstance(parameter, ChoiceParameter) else value
    return overrides


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
