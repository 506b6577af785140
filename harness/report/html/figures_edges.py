"""The best trials at the end of a parameter's range: the space may be too small there."""

from __future__ import annotations

import math

from harness.config import Space, apply_overrides, to_overrides
from harness.config.space import ChoiceParameter, FloatParameter, IntParameter
from harness.errors import ConfigError
from harness.report.html.search_data import SearchData, SearchTrial
from harness.search.values import Picked, position

#: trials that must agree, and how near to an end, as a share of the range on its own scale
BEST, NEAR = 5, 0.05
#: trials below which the best few are no better than any
_LEAST = 10


def winners(data: SearchData, name: str) -> tuple[SearchTrial, ...]:
    """The BEST best ended trials, if they have the parameter."""
    ended = [t for t in data.ranked if t.state != "going"][:BEST]
    return tuple(t for t in ended if name in t.picked)


def edge_warning(data: SearchData, name: str) -> str | None:
    """A sentence where all of the best trials lie at one end of the range, with what to change; else None."""
    parameter, best = data.parameters[name], winners(data, name)
    ended = sum(t.state != "going" for t in data.ranked)
    if isinstance(parameter, ChoiceParameter) or len(best) < BEST or ended < _LEAST:
        return None
    at = [position(parameter, t.picked[name]) for t in best]
    if max(at) <= NEAR:
        end, limit = "low", parameter.low
    elif min(at) >= 1 - NEAR:
        end, limit = "high", parameter.high
    else:
        return None
    return (
        f"The best {BEST} trials all have {name} at the {end} end of its range ({end}: {limit:.6g}): "
        f"{_advice(data.space, name, best[0].picked, end)}."
    )


def _advice(space: Space, name: str, picked: Picked, end: str) -> str:
    """What to do about it, tried on the best trial's other values: a term or step may exist there alone."""
    parameter = space.parameters[name]
    beyond = _beyond(parameter, end)
    verb = "lower" if end == "low" else "raise"
    try:
        apply_overrides(space.experiment, to_overrides(space, picked | {name: beyond}))
    except ConfigError:
        limit = parameter.low if end == "low" else parameter.high
        return (
            f"{parameter.field} does not take {beyond:.6g}, so fix it at {limit:.6g}, "
            "or ask whether the term or step that it belongs to is needed"
        )
    return f"{verb} `{end}` of {name} to {beyond:.6g} and search on"


def _beyond(parameter: FloatParameter | IntParameter, end: str) -> float | int:
    """The range's end, moved out by a quarter of the range on its own scale."""
    low, high = float(parameter.low), float(parameter.high)
    if parameter.log:
        factor = (high / low) ** 0.25
        moved = low / factor if end == "low" else high * factor
    else:
        quarter = (high - low) / 4
        if parameter.step is not None:
            quarter = math.ceil(quarter / parameter.step) * parameter.step
        moved = low - quarter if end == "low" else high + quarter
    if isinstance(parameter, FloatParameter):
        return float(f"{moved:.2g}") if parameter.log else float(f"{moved:.6g}")
    return math.floor(moved) if end == "low" else math.ceil(moved)
