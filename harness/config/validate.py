"""From plain values to sections, with messages that name the file, the line, the field and the nearest word."""

from __future__ import annotations

import difflib
import json
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.config.base import Section
from harness.config.yaml_file import MAX_DEPTH, Location, load_yaml
from harness.errors import ConfigError

S = TypeVar("S", bound=Section)

#: whole numbers that arrays and databases hold: below this, and not below its negative
_INTEGERS = 1 << 63
#: characters of a value, and mistakes, that a message shows
_SHOWN, _LISTED = 200, 20


def read_section(section: type[S], path: Path) -> S:
    """Read a YAML file as a section.

    Raises:
        ConfigError: the file cannot be read, or a field breaks a rule; the message gives file and line.
    """
    value, lines = load_yaml(path)
    return validate_section(section, {} if value is None else value, str(path), lines)


def validate_section(section: type[S], value: Any, name: str, lines: dict[Location, int] | None = None) -> S:
    """Validate plain values (dicts, lists, scalars) as a section; `name` stands for the file in messages."""
    unfit = [f"{_place(path, name, lines or {})}: {rule}" for path, rule in _unfit(value, ())]
    if unfit:
        raise ConfigError(_listed(unfit))
    try:
        # through JSON, where lists may become tuples while everything else stays strict
        return section.model_validate_json(json.dumps(value))
    except ValidationError as error:
        errors = error.errors()
        said = [_message(section, e, value, name, lines or {}) for e in errors[:_LISTED]]
        raise ConfigError(_listed(said, len(errors))) from error


def _listed(messages: list[str], count: int | None = None) -> str:
    """The first mistakes, and how many there are besides."""
    more = (count or len(messages)) - _LISTED
    return "\n".join(messages[:_LISTED] + ([f"and {more} more"] if more > 0 else []))


def _unfit(value: Any, path: Location) -> Iterator[tuple[Location, str]]:
    """What cannot be written as JSON and read back the same, wherever it stands, and by which rule."""
    if len(path) > MAX_DEPTH:
        yield path[:1], f"nested deeper than {MAX_DEPTH} levels; no field is"
    elif isinstance(value, dict):
        for key, inner in value.items():
            broken = _broken_text(key) if isinstance(key, str) else None
            yield from [(path, f"key {key!r}: {broken}")] if broken else _unfit(inner, (*path, key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _unfit(inner, (*path, index))
    elif rule := _broken_scalar(value):
        yield path, rule


def _broken_scalar(value: Any) -> str | None:
    if isinstance(value, str):
        return _broken_text(value)
    if isinstance(value, bool | None):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"input should be a finite number, not {value!r}"
    if isinstance(value, int):
        return None if -_INTEGERS <= value < _INTEGERS else "a whole number of more than 64 bits; write a smaller one"
    return f"a value of type {type(value).__name__}; use only numbers, text, true/false, lists and mappings"


def _broken_text(text: str) -> str | None:
    """Half of a surrogate pair cannot be written, a NUL cannot be part of a path."""
    if text.isascii() and "\0" not in text:
        return None
    broken = "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)
    return f"text with a NUL or half a surrogate pair: {shortened(text)}; write it anew" if broken else None


def shortened(value: Any) -> str:
    """How a value looks in a message: on one line, and not for pages."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def printable(text: str) -> str:
    """Text on one line, without the characters that move a cursor, clear a screen or cannot be written."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible(text: str) -> str:
    """Text that a file holds, line for line, as a screen may show it: as `printable`, but for line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _message(section: type[Section], error: Any, value: Any, name: str, lines: dict[Location, int]) -> str:
    path = _plain_location(error["loc"], value)
    if error["type"] == "missing":
        path = (*path, error["loc"][-1])
    return f"{_place(path, name, lines)}: {_rule(section, error)}"


def _place(path: Location, name: str, lines: dict[Location, int]) -> str:
    """The file, the line and the field, as far as they are known."""
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = name if line is None else f"{name}:{line}"
    return f"{place}: {printable('.'.join(map(str, path)))}" if path else place


def _rule(section: type[Section], error: Any) -> str:
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(error['loc'][-1]), _fields_at(section, error['loc'][:-1]))}"
    if kind == "missing":
        return "is missing; it has no default"
    if kind == "union_tag_not_found":
        return f"needs a 'kind'; one of {error['ctx'].get('expected_tags', _kinds_at(section, error['loc']))}"
    if kind == "union_tag_invalid":
        tags = error["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"kind '{error['ctx']['tag']}' does not exist{did_you_mean(error['ctx']['tag'], tags)}"
    if kind == "literal_error" and isinstance(given, str):
        choices = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        if given in choices:
            return f"'{given}' is text; write the number {given} without quotes"
        return f"'{given}' is not a choice{did_you_mean(given, choices)}"
    if kind in ("too_short", "too_long"):
        limits = error["ctx"]
        allowed = f"{limits['min_length']} or more" if kind == "too_short" else f"{limits['max_length']} or fewer"
        return f"has {limits['actual_length']} items; it takes {allowed}"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {shortened(given)}"


def _plain_location(location: Location, value: Any) -> Location:
    """The location without what pydantic puts in for unions: a section's kind stands before its fields."""
    path: list[str | int] = []
    kind_may_follow = False
    for part in location:
        if kind_may_follow and isinstance(value, dict) and value.get("kind") == part:
            kind_may_follow = False
        elif _holds(value, part):
            path.append(part)
            value = value[part]
            kind_may_follow = True
    return tuple(path)


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _fields_at(section: type[BaseModel], location: Location) -> list[str]:
    """The field names allowed at a pydantic location (kinds included)."""
    return [name for s in _sections_at(section, location) for name in s.model_fields]


def _kinds_at(section: type[BaseModel], location: Location) -> str:
    return ", ".join(f"'{kind}'" for s in _sections_at(section, location) if (kind := _kind_of(s)))


def _sections_at(section: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    annotations: list[Any] = [section]
    for part in location:
        annotations = [inner for annotation in annotations for inner in _inside(annotation, part)]
    return [s for annotation in annotations for s in _sections_in(annotation)]


def _inside(annotation: Any, part: str | int) -> list[Any]:
    """What an annotation allows at the next part of a location: a field, an item, or a section by its kind."""
    if _is_section(annotation):
        return [annotation.model_fields[part].annotation] if part in annotation.model_fields else []
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        tagged = [a for a in inner if _is_section(a) and _kind_of(a) == part]
        return tagged or [deeper for a in inner for deeper in _inside(a, part)]
    if typing.get_origin(annotation) is typing.Annotated:
        return _inside(inner[0], part)
    return list(inner)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that an annotation allows."""
    if _is_section(annotation):
        return [annotation]
    return [s for inner in typing.get_args(annotation) for s in _sections_in(inner)]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind_of(section: type[BaseModel]) -> str | None:
    return section.model_fields["kind"].default if "kind" in section.model_fields else None
