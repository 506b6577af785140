"""What a study was asked to do, as its study.yaml says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from harness.ablate import resolve_arms
from harness.ablate.replicates import chain
from harness.config import (
    AblationSettings,
    Experiment,
    ReplicateSettings,
    SearchSettings,
    fingerprint,
    load_yaml,
    read_section,
)
from harness.config.ablation import Path
from harness.config.space import SearchConfig
from harness.errors import StudyError
from harness.search import NoRungs, RungRule, baseline_pick
from harness.search.confirmation import are_ranks
from harness.search.strategies import rung_rule
from harness.store import StudyFolder

_SETTINGS = {"search": SearchSettings, "replicates": ReplicateSettings, "ablation": AblationSettings}

Kind = Literal["search", "ablation", "training", "confirmation"]


@dataclass(frozen=True)
class Plan:
    """How many trials of how many epochs, and the rungs."""

    name: str
    kind: Kind
    #: trials; none: not known
    planned: int | None
    #: of a trial that nothing stops
    epochs: int
    #: whether `planned` is the most there can be: a race, a path
    at_most: bool = False
    search: SearchConfig | None = None
    #: whether trial 0 is the default Experiment, which no rung ends
    baseline: bool = False

    def rule(self) -> RungRule:
        """The rungs, with nothing reported yet."""
        return NoRungs() if self.search is None else rung_rule(self.search, self.epochs)


@dataclass(frozen=True)
class Asked:
    """A plan, and the arms by fingerprint: a trial's id names its Experiment."""

    plan: Plan
    arms: Mapping[str, tuple[str, Experiment]] = field(default_factory=dict)
    first_seed: int = 0

    def trial(self, trial_id: str) -> tuple[int | None, dict[str, Any], int] | None:
        """Number, picked values and epochs of an arm's trial; None where the id is that of no trial."""
        named = re.fullmatch(r"(\w+)-s(\d+)", trial_id)
        if named is None or named[1] not in self.arms:
            return None
        arm, experiment = self.arms[named[1]]
        seed = int(named[2])
        # a race and a path do not take all arms in turn
        turn = (seed - self.first_seed) * len(self.arms) + list(self.arms).index(named[1])
        number = None if self.plan.at_most else turn
        return number, {"arm": arm, "seed": seed}, experiment.training.epochs


def path_arms(factors: int) -> int:
    """How many arms a path tries in all: the baseline, then every factor left, until none is."""
    return 1 + factors * (factors + 1) // 2


def read_asked(folder: StudyFolder) -> Asked:
    """What the study in a folder was asked to do.

    Raises:
        StudyError: its study.yaml is of no kind that is known.
        ConfigError: it breaks a rule.
    """
    value, _ = load_yaml(folder.settings)
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind not in _SETTINGS:
        raise StudyError(
            f"{folder.settings}: kind {kind!r} is none of {', '.join(_SETTINGS)}; the file was changed by hand or "
            "written by another version: restore it"
        )
    settings = read_section(_SETTINGS[kind], folder.settings)
    if isinstance(settings, SearchSettings):
        space = settings.space
        epochs, search, has_baseline = space.experiment.training.epochs, space.search, baseline_pick(space) is not None
        return Asked(Plan(folder.name, "search", search.trials, epochs, search=search, baseline=has_baseline))
    if isinstance(settings, ReplicateSettings):
        kind = "confirmation" if are_ranks(settings.arms) else "training"
        return replace(_of_arms(folder, kind, settings.arms, settings.seeds), first_seed=settings.first_seed)
    resolved = resolve_arms(settings.ablation, settings.scale)
    return _of_arms(folder, "ablation", {name: arm.experiment for name, arm in resolved.items()}, *_asked_of(settings))


def _asked_of(settings: AblationSettings) -> tuple[int, int | None, bool]:
    """Seeds of an arm, the arms where more come than are known now, and whether that is the most there can be."""
    is_path = isinstance(settings.ablation.design, Path)
    seeds = max(settings.seeds, settings.race or 0)
    return seeds, path_arms(len(settings.ablation.factors)) if is_path else None, is_path or settings.race is not None


def _of_arms(
    folder: StudyFolder,
    kind: Kind,
    arms: Mapping[str, Experiment],
    seeds: int,
    tried: int | None = None,
    at_most: bool = False,
) -> Asked:
    planned = seeds * (tried or len(arms))
    epochs = max(experiment.training.epochs for experiment in arms.values())
    by_fingerprint = {fingerprint(experiment): (arm, experiment) for arm, experiment in chain(arms).items()}
    return Asked(Plan(folder.name, kind, planned, epochs, at_most), by_fingerprint)
