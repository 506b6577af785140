"""From plain values to sections, with messages that name the file, the line, the field and the nearest word."""

from __future__ import annotations

import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.config.base import Section
from harness.config.yaml_file import Location, load_yaml
from harness.errors import ConfigError

S = TypeVar("S", bound=Section)


def read_section(section: type[S], path: Path) -> S:
    """Read a YAML file as a section.

    Raises:
        ConfigError: the file cannot be read, or a field breaks a rule; the message gives file and line.
    """
    value, lines = load_yaml(path)
    return validate_section(section, {} if value is None else value, str(path), lines)


def validate_section(section: type[S], value: Any, name: str, lines: dict[Location, int] | None = None) -> S:
    """Validate plain values (dicts, lists, scalars) as a section; `name` stands for the file in messages."""
    try:
        # through JSON, where lists may become tuples while everything else stays strict
        return section.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise ConfigError("\n".join(_message(section, e, value, name, lines or {}) for e in error.errors())) from error
    except TypeError as error:
        raise ConfigError(f"{name}: {error}; use only numbers, text, true/false, lists and mappings") from error


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _message(section: type[Section], error: Any, value: Any, name: str, lines: dict[Location, int]) -> str:
    location = error["loc"]
    path = _plain_location(location, value)
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = name if line is None else f"{name}:{line}"
    field = ".".join(map(str, path))
    return f"{place}: {field}: {_rule(section, error)}" if field else f"{place}: {_rule(section, error)}"


def _rule(section: type[Section], error: Any) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(error['loc'][-1]), _fields_at(section, error['loc'][:-1]))}"
    if kind == "missing":
        return "is missing; it has no default"
    if kind == "union_tag_not_found":
        return f"needs a 'kind'; one of {error['ctx'].get('expected_tags', _tags_at(section, error['loc']))}"
    if kind == "union_tag_invalid":
        tags = error["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"kind '{error['ctx']['tag']}' does not exist{did_you_mean(error['ctx']['tag'], tags)}"
    if kind == "literal_error" and isinstance(given, str):
        choices = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"'{given}' is not a choice{did_you_mean(given, choices)}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {given!r}"


def _plain_location(location: Location, value: Any) -> Location:
    """The location without the tags that pydantic puts in for unions."""
    path: list[str | int] = []
    for part in location:
        if isinstance(value, dict) and part in value:
            path.append(part)
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path.append(part)
            value = value[part]
        elif isinstance(value, dict) and part is location[-1] and value.get("kind") != part:
            path.append(part)
    return tuple(path)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated, tuple, list, dict):
        return [s for a in typing.get_args(annotation) for s in _sections_in(a)]
    return []


def _kind_of(section: type[BaseModel]) -> str | None:
    return section.model_fields["kind"].default if "kind" in section.model_fields else None


def _fields_at(section: type[BaseModel], location: Location) -> list[str]:
    """The field names allowed at a pydantic location (tags included)."""
    candidates = [section]
    for part in location:
        tagged = [c for c in candidates if _kind_of(c) == part]
        if tagged:
            candidates = tagged
            continue
        fields = [c.model_fields[part].annotation for c in candidates if part in c.model_fields]
        candidates = [s for a in fields for s in _sections_in(a)] or candidates
    return [name for c in candidates for name in c.model_fields]


def _tags_at(section: type[BaseModel], location: Location) -> str:
    candidates = [section]
    for part in location:
        fields = [c.model_fields[part].annotation for c in candidates if part in c.model_fields]
        candidates = [s for a in fields for s in _sections_in(a)] or candidates
    return ", ".join(f"'{kind}'" for c in candidates if (kind := _kind_of(c)))
