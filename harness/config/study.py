"""What a study was asked to do, resolved: the content of its study.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.config.ablation import Ablation
from harness.config.base import Name, Section
from harness.config.experiment import Experiment
from harness.config.space import Space
from harness.config.validate import read_section
from harness.config.yaml_file import load_yaml
from harness.errors import ConfigError

#: trials of a search that are trained again, unless another number is asked for
CONFIRMED_TRIALS = 5
#: what may change when a study is resumed
_MAY_CHANGE = ("space.search.trials", "seeds", "race", "ablation.design.steps")


class SearchSettings(Section):
    """A search."""

    kind: Literal["search"] = "search"
    space: Space = Field(description="what varies, with the default Experiment, weights settled")
    seed: int = Field(ge=0, description="seed of the proposals and of every training")
    dataset: str = Field(description="fingerprint of the frames")


class ReplicateSettings(Section):
    """Arms, each trained with the same seeds."""

    kind: Literal["replicates"] = "replicates"
    arms: dict[Name, Experiment] = Field(min_length=1, description="name to Experiment, weights settled")
    seeds: int = Field(ge=1, description="trainings of each")
    first_seed: int = Field(0, ge=0, description="seed of the first training; the others follow")
    dataset: str = Field(description="fingerprint of the frames")


class AblationSettings(Section):
    """An ablation at one of its scales."""

    kind: Literal["ablation"] = "ablation"
    ablation: Ablation = Field(description="arms or factors and the design, weights settled")
    scale: str = Field(description="which of the ablation's scales")
    seeds: int = Field(ge=1, description="replicates of every arm: seeds 0, 1, ...")
    race: int | None = Field(None, description="unresolved arms went on to so many seeds; none: all have the same")
    dataset: str = Field(description="fingerprint of the frames")


Settings = SearchSettings | ReplicateSettings | AblationSettings
_KINDS: dict[str, type[Settings]] = {
    "search": SearchSettings,
    "replicates": ReplicateSettings,
    "ablation": AblationSettings,
}


def read_settings(path: Path) -> Settings:
    """What a study was asked to do, whatever its kind, from its study.yaml.

    Raises:
        ConfigError: the file is damaged, or of no kind of study that is known.
    """
    values, _ = load_yaml(path)
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(
            f"{path}: kind {kind!r} is none of {', '.join(_KINDS)}; the file was changed by hand or written by another "
            "version: restore it"
        )
    return read_section(_KINDS[kind], path)


def differences(old: Section, new: Section) -> list[str]:
    """`field: old -> new` for each field that a resumed study may not change."""
    before, after = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    fields = [field for field in before | after if field not in _MAY_CHANGE]
    return [f"{f}: {before.get(f)} -> {after.get(f)}" for f in fields if before.get(f) != after.get(f)]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by a dot; an empty mapping is a value."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{path}.{key}".lstrip(".")).items()}
    return {path: value}
