"""Recipes that a search tries right after the default Experiment: by hand, published, or an earlier study's best."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.config import (
    Experiment,
    SearchSettings,
    Space,
    apply_overrides,
    flat,
    is_active,
    read_section,
    to_overrides,
)
from harness.config.space import ChoiceParameter, Parameter
from harness.errors import ConfigError, StudyError
from harness.search.default import baseline_pick, default_label, label_in, value_at
from harness.search.values import Picked, at_position, draws_of, random_position
from harness.store import Record, StudyFolder

#: trials that lie outside a space, and fields, that a note names
_NAMED = 3


def first_picks(space: Space, seed: int) -> list[Picked]:
    """The values of the trials before the first that is drawn: the default Experiment's, then each recipe's."""
    default = baseline_pick(space)
    picks = [] if default is None else [default]
    for recipe in space.search.enqueue:
        picks.append(completed(space, recipe, draws_of(seed, len(picks))))
    return picks


def completed(space: Space, recipe: Picked, rng: np.random.Generator) -> Picked:
    """A recipe with what it leaves out: the default Experiment's value or, where the space lacks that, a drawn one."""
    picked: Picked = {}
    for name, parameter in space.parameters.items():
        # one number for each parameter, needed or not: what is drawn does not hang on what is given
        drawn = at_position(parameter, random_position(parameter, rng.random()))
        if is_active(parameter, picked):
            default = default_label(space, name)
            picked[name] = recipe[name] if name in recipe else drawn if default is None else default
    return picked


def expressed(space: Space, experiment: Experiment) -> Picked:
    """The values by which a space says what an Experiment says, in the fields that the space varies.

    Raises:
        ConfigError: the field whose value the space cannot take, and what it takes.
    """
    values, picked = experiment.model_dump(mode="json"), {}
    for name, parameter in space.parameters.items():
        if is_active(parameter, picked):
            label = label_in(space, name, values)
            if label is None:
                value = _short(value_at(values, parameter.field))
                raise ConfigError(f"{parameter.field} is {value}, and parameter '{name}' takes {_takes(parameter)}")
            picked[name] = label
    return picked


def not_carried(space: Space, experiment: Experiment, picked: Picked) -> dict[str, tuple[Any, Any]]:
    """Fields that a space does not vary, or only in part: their values in an Experiment, and in a trial of `picked`."""
    ours = flat(apply_overrides(space.experiment, to_overrides(space, picked)).model_dump(mode="json"))
    theirs = flat(experiment.model_dump(mode="json"))
    return {f: (theirs.get(f), ours.get(f)) for f in theirs | ours if theirs.get(f) != ours.get(f)}


def recipe_of(space: Space, experiment: Experiment, what: str) -> tuple[Picked, str]:
    """A published Experiment as a recipe, and what there is to say of it.

    Raises:
        ConfigError: the field whose value the space cannot take.
    """
    try:
        picked = expressed(space, experiment)
    except ConfigError as error:
        raise ConfigError(
            f"{what} lies outside this space: {error}; widen that parameter, or enqueue another"
        ) from error
    lost = not_carried(space, experiment, picked)
    fields = [f"{field} {_short(ours)} (there {_short(theirs)})" for field, (theirs, ours) in lost.items()]
    note = f"enqueued {what}: {_values(picked)}"
    return picked, note + (f"; what this space does not vary stays its own: {', '.join(fields)}" if fields else "")


def best_recipes(space: Space, folder: StudyFolder, top: int) -> tuple[list[Picked], list[str]]:
    """The best `top` of an earlier search that lie in a space, the best first, and what there is to say of them.

    Raises:
        StudyError: none of its trials has a score, or lies in this space.
        ConfigError: the folder holds no search.
    """
    earlier = read_section(SearchSettings, folder.settings).space
    recipes: list[Picked] = []
    numbers, outside = [], []
    for row in Record(folder).ranking():
        if len(recipes) == top:
            break
        try:
            picked = expressed(space, apply_overrides(earlier.experiment, to_overrides(earlier, row.picked)))
        except ConfigError as error:
            outside.append(f"trial {row.number} ({row.score:.4f}): {error}")
            continue
        if picked not in recipes:
            recipes.append(picked)
            numbers.append(f"trial {row.number} ({row.score:.4f})")
    if not recipes:
        fix = f"none of its trials lies in this space: {outside[0]}" if outside else "it has no trial with a score yet"
        raise StudyError(f"--warm-start {folder.name}: {fix}; leave it out, or give another study")
    notes = [f"warm start from {folder.name}: its {', '.join(numbers)}"]
    if outside:
        more = f", and {len(outside) - _NAMED} more" if len(outside) > _NAMED else ""
        notes.append(f"left out, as they lie outside this space: {'; '.join(outside[:_NAMED])}{more}")
    return recipes, notes


def _takes(parameter: Parameter) -> str:
    if isinstance(parameter, ChoiceParameter):
        return ", ".join(map(str, parameter.values()))
    step = f" in steps of {parameter.step}" if parameter.step is not None and not parameter.log else ""
    return f"{parameter.low} to {parameter.high}{step}"


def _values(picked: Picked) -> str:
    return ", ".join(f"{name} {value}" for name, value in picked.items())


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
