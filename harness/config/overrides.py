"""Dotted overrides: `loss.dice.weight` to a new value, the whole Experiment validated again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from harness.config.base import Section
from harness.config.validate import did_you_mean, validate_section
from harness.config.yaml_file import parse_yaml
from harness.errors import ConfigError

S = TypeVar("S", bound=Section)


def apply_overrides(section: S, overrides: Mapping[str, Any]) -> S:
    """A new section with the values at the dotted paths replaced, in order.

    A value may be a whole sub-section as a mapping, which then replaces the old one.

    Raises:
        ConfigError: a path that does not exist in the section, or a value that breaks a rule.
    """
    values = _values(section)
    paths = list(overrides)
    for index, path in enumerate(paths, 1):
        _set(values, path, overrides[path])
        if any(later.startswith(f"{path}.") for later in paths[index:]):
            # fill in the new section's defaults, which a later path changes
            values = _values(validate_section(type(section), values, "override"))
    return validate_section(type(section), values, "override")


def _values(section: Section) -> dict[str, Any]:
    return json.loads(section.model_dump_json())


def parse_override(text: str) -> tuple[str, Any]:
    """`loss.dice.weight=0.5` as path and value, the value read as YAML.

    Raises:
        ConfigError: there is no '='.
    """
    path, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"override '{text}' has no '='; write it as path.to.field=value")
    return path.strip(), parse_yaml(value, f"override {path.strip()}")[0]


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    here: Any = values
    for depth, part in enumerate(parents):
        if not isinstance(here, dict) or part not in here:
            _refuse(path, ".".join(parents[: depth + 1]), part, here)
        here = here[part]
    if not isinstance(here, dict) or last not in here:
        _refuse(path, path, last, here)
    here[last] = value


def _refuse(path: str, reached: str, part: str, here: Any) -> None:
    known = list(here) if isinstance(here, dict) else []
    kind = f" (kind '{here['kind']}')" if isinstance(here, dict) and "kind" in here else ""
    hint = did_you_mean(part, known) if known else f"; the field above it holds {here!r}: set that one as a whole"
    raise ConfigError(f"override {path}: there is no field '{reached}'{kind}{hint}")
