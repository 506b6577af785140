"""Where an Experiment lies in a Space."""

from __future__ import annotations

from typing import Any

from harness.config import Space, is_active
from harness.config.space import ChoiceParameter, IntParameter, Scalar, value_problem


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


def baseline_pick(space: Space) -> dict[str, Scalar] | None:
    """The values of trial 0 where it is the default Experiment, with which the others are compared; None elsewhere."""
    return default_pick(space) if space.search.default_first else None


def default_label(space: Space, name: str) -> Scalar | None:
    """The label or value of one parameter in the default Experiment; None where the parameter cannot take it."""
    return label_in(space, name, space.experiment.model_dump(mode="json"))


def label_in(space: Space, name: str, values: dict[str, Any]) -> Scalar | None:
    """The label or number by which a parameter says what an Experiment's values hold; None where it cannot."""
    parameter = space.parameters[name]
    value = value_at(values, parameter.field)
    if isinstance(parameter, ChoiceParameter):
        labels = parameter.values().items()
        return next((label for label, choice in labels if _same(choice, value, _set_below(space, name, label))), None)
    if isinstance(value, float) and isinstance(parameter, IntParameter) and value.is_integer():
        value = int(value)
    fits = isinstance(value, int | float) and value_problem(parameter, value) is None
    return value if fits else None


def value_at(values: Any, path: str) -> Any:
    """What nested values hold at a dotted path; None where they have no such field."""
    for part in path.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def _set_below(space: Space, name: str, label: Scalar) -> set[str]:
    """Dotted paths, within what a label sets, that other parameters set after it."""
    field = f"{space.parameters[name].field}."
    others = (p for p in space.parameters.values() if p.field.startswith(field))
    return {p.field.removeprefix(field) for p in others if name not in p.when or label in p.when[name]}


def _same(choice: Any, value: Any, but: set[str]) -> bool:
    """Whether a choice, with its own defaults left out, is what an Experiment holds, `but` for some paths."""
    if not (isinstance(choice, dict) and isinstance(value, dict)):
        return choice == value
    return all(
        key in value and _same(choice[key], value[key], {p.removeprefix(f"{key}.") for p in but})
        for key in choice
        if key not in but
    )
