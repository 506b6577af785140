"""Designs: from an Ablation to its arms, every field of every arm decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from harness.ablate.factorial import fraction_of, subsets
from harness.config import Experiment, apply_overrides, did_you_mean, fingerprint
from harness.config.ablation import (
    Ablation,
    Arms,
    Factor,
    Factorial,
    Ladder,
    LeaveOneOut,
    OneFactor,
    Overrides,
    Path,
    Shapley,
    design_arms,
)
from harness.errors import ConfigError

BASELINE, ALL = "baseline", "all"

#: up to this many factors a Shapley design runs every subset
SHAPLEY_EXACT = 6


@dataclass(frozen=True)
class ResolvedArm:
    """An arm with its whole Experiment; `start` names the arms whose weights it starts from.

    The Experiment's own `start` says the same as `arm:NAME`.
    """

    name: str
    experiment: Experiment
    start: tuple[str, ...]
    factors: frozenset[str]
    guess: str | None


def resolve_arms(ablation: Ablation, scale: str) -> dict[str, ResolvedArm]:
    """The arms of a design at a scale, by name; an arm comes after those whose weights it starts from.

    Changes are laid over the ablation's Experiment in this order, the last word on a field holding: the base
    arms' from the root down, the arm's own (or its factors' in the order of the file), the scale's. An arm takes
    its base's changes, not its start. One of 0 epochs only scores, at every scale.
    Raises ConfigError for an unknown scale, a change that breaks a rule (with the arm's name), and two arms
    that are the same training.
    """
    if scale not in ablation.scale:
        raise ConfigError(f"scale '{scale}' is not in this ablation{did_you_mean(scale, ablation.scale)}")
    named = isinstance(ablation.design, Ladder | Arms)
    arms = _named_arms(ablation, scale) if named else _factor_arms(ablation, scale)
    _refuse_twins(arms, ablation, scale)
    return arms


def baseline_of(ablation: Ablation) -> str:
    """The arm that the others are compared with: the first or named one, all factors (leave one out), or none."""
    if isinstance(ablation.design, Ladder | Arms):
        return design_arms(ablation.design)[0]
    return ALL if isinstance(ablation.design, LeaveOneOut) else BASELINE


def rungs_of(ablation: Ablation) -> tuple[str, ...] | None:
    """The arms that are each a step from the one before: a ladder's rungs, a path's way so far; none: no order."""
    design = ablation.design
    if isinstance(design, Path):
        return tuple(combination_name(on, list(ablation.factors)) for on in prefixes(design.steps))
    return design.rungs if isinstance(design, Ladder) else None


def shapley_orders(factors: Sequence[str], permutations: int) -> tuple[tuple[str, ...], ...]:
    """Random orders of the factors in antithetic pairs: each followed by its reverse.

    They are part of the design and so always the same; asking for more keeps the first ones.
    Mitchell et al., Sampling permutations for Shapley value estimation, JMLR 23 (2022).
    """
    generator = np.random.default_rng(0)
    orders: list[tuple[str, ...]] = []
    while len(orders) < permutations:
        order = tuple(factors[i] for i in generator.permutation(len(factors)))
        orders += [order, order[::-1]]
    return tuple(orders[:permutations])


def prefixes(order: Sequence[str]) -> list[frozenset[str]]:
    """The sets met on the way from none to all in an order."""
    return [frozenset(order[:n]) for n in range(len(order) + 1)]


def combination_name(on: frozenset[str], factors: Sequence[str]) -> str:
    """The arm's name: baseline, all, or the factors that are on joined by '+'."""
    if not on:
        return BASELINE
    return ALL if len(on) == len(factors) else "+".join(f for f in factors if f in on)


def _named_arms(ablation: Ablation, scale: str) -> dict[str, ResolvedArm]:
    compared = design_arms(ablation.design)
    twice = next((name for name in compared if compared.count(name) > 1), None)
    if twice:
        raise ConfigError(f"the design names arm '{twice}' {compared.count(twice)} times; name each arm once")
    names = dict.fromkeys(name for arm in compared for name in _with_starts(ablation, arm))
    return {name: _named_arm(ablation, name, scale) for name in names}


def _named_arm(ablation: Ablation, name: str, scale: str) -> ResolvedArm:
    arm = ablation.arms[name]
    start: Overrides = {"start": [f"arm:{other}" for other in arm.starts()]} if arm.starts() else {}
    # first in order, last in word: 0 epochs are refused on the way by an Experiment without a start
    changes = {**start, **_merged([*_changes(ablation, name), start])}
    experiment = _experiment(ablation, name, [changes], scale)
    return ResolvedArm(name, experiment, arm.starts(), frozenset(), arm.guess)


def _changes(ablation: Ablation, name: str) -> list[Overrides]:
    """The changes of an arm's bases, from the root down, then its own."""
    arm = ablation.arms[name]
    return [*(_changes(ablation, arm.base) if arm.base else []), arm.set]


def _with_starts(ablation: Ablation, name: str) -> list[str]:
    """The arms whose weights an arm needs, directly or not, each before those that need it, and itself last."""
    return [*(above for other in ablation.arms[name].starts() for above in _with_starts(ablation, other)), name]


def _factor_arms(ablation: Ablation, scale: str) -> dict[str, ResolvedArm]:
    if isinstance(ablation.design, Path):
        _refuse_what_fails_later(ablation.factors)
    arms: dict[str, ResolvedArm] = {}
    for name, on in _combinations(ablation):
        if name in arms:
            raise ConfigError(f"two arms would be called '{name}'; rename the factor of that name")
        layers = [factor.set for key, factor in ablation.factors.items() if key in on]
        experiment = _experiment(ablation, name, layers, scale)
        arms[name] = ResolvedArm(name, experiment, (), on, _guess(ablation, on))
    return arms


def _combinations(ablation: Ablation) -> list[tuple[str, frozenset[str]]]:
    """Name and factors of every arm, the reference first."""
    design, factors = ablation.design, list(ablation.factors)
    if isinstance(design, LeaveOneOut):
        every = frozenset(factors)
        return [(ALL, every), *((f"without_{f}", every - {f}) for f in factors)]
    return [(combination_name(on, factors), on) for on in _sets(design, factors)]


def _sets(design: OneFactor | Factorial | Shapley | Path, factors: list[str]) -> Iterable[frozenset[str]]:
    if isinstance(design, OneFactor):
        return [frozenset(), *(frozenset([f]) for f in factors)]
    if isinstance(design, Path):
        tried = [on | {f} for on in prefixes(design.steps) for f in factors if f not in on]
        return dict.fromkeys([frozenset(), *tried])
    if isinstance(design, Factorial):
        return fraction_of(factors, design.halvings).runs()
    if len(factors) <= SHAPLEY_EXACT:
        return subsets(factors)
    orders = shapley_orders(factors, design.permutations)
    return dict.fromkeys(s for order in orders for s in prefixes(order))


def _refuse_what_fails_later(factors: Mapping[str, Factor]) -> None:
    """What would make a later round of a path two arms of one name, or a step that changes nothing."""
    for name in factors:
        if name in (BASELINE, ALL) or "+" in name:
            raise ConfigError(f"a factor of a path is called '{name}', as an arm may be; rename it, without '+'")
    for one, other in combinations(factors, 2):
        shared = sorted(p for p in factors[one].set if any(_overlap(p, q) for q in factors[other].set))
        if shared:
            raise ConfigError(
                f"factors '{one}' and '{other}' of a path both change {', '.join(shared)}, so that one would undo the "
                "other; make them one factor, or let each change fields of its own"
            )


def _guess(ablation: Ablation, on: frozenset[str]) -> str | None:
    """The guess of the one factor that makes the arm differ from its reference; none: more than one."""
    off = [f for f in ablation.factors if f not in on]
    changed = off if isinstance(ablation.design, LeaveOneOut) else list(on)
    return ablation.factors[changed[0]].guess if len(changed) == 1 else None


def _experiment(ablation: Ablation, name: str, layers: list[Overrides], scale: str) -> Experiment:
    own = _merged(layers)
    try:
        return apply_overrides(
            ablation.experiment, _merged([own, ablation.scale[scale].set, _scoring_only(own, ablation)])
        )
    except ConfigError as error:
        raise ConfigError(f"arm '{name}' at scale '{scale}': {error}") from error


def _scoring_only(own: Overrides, ablation: Ablation) -> Overrides:
    """What a scale may not change in an arm that trains for 0 epochs: those, and the schedule that fits them."""
    section = own.get("training", {"epochs": ablation.experiment.training.epochs})
    whole = section.get("epochs") if isinstance(section, dict) else None
    if own.get("training.epochs", whole) != 0:
        return {}
    schedule = {path: value for path, value in own.items() if path.split(".")[0] == "schedule"}
    return {"training.epochs": 0, **schedule}


def _merged(layers: Iterable[Overrides]) -> Overrides:
    """One set of overrides; validated once, so that a rule may be broken on the way but not in the end."""
    merged: Overrides = {}
    for path, value in ((path, value) for layer in layers for path, value in layer.items()):
        for inside in [old for old in merged if old.startswith(f"{path}.")]:
            del merged[inside]
        merged[path] = value
    return merged


def _refuse_twins(arms: dict[str, ResolvedArm], ablation: Ablation, scale: str) -> None:
    """Two arms that are the same training would be one trial, and their difference exactly 0."""
    seen: dict[str, str] = {}
    for name, arm in arms.items():
        digits = fingerprint(arm.experiment)
        twin = seen.setdefault(digits, name)
        if twin != name:
            raise ConfigError(
                f"arm '{name}' and arm '{twin}' are the same training at scale '{scale}' "
                f"(fingerprint {digits}); {_twin_fix(arm, ablation, scale)}"
            )


def _twin_fix(arm: ResolvedArm, ablation: Ablation, scale: str) -> str:
    named = isinstance(ablation.design, Ladder | Arms)
    layers = [ablation.arms[arm.name].set] if named else [factor.set for factor in ablation.factors.values()]
    own, last = _merged(layers), ablation.scale[scale].set
    hidden = sorted(path for path in last if any(_overlap(path, changed) for changed in own))
    if hidden:
        return f"the scale's {', '.join(hidden)} comes last and hides it: take it out of scale.{scale}.set"
    return "change a field that the other does not, or leave one of them out"


def _overlap(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")
