"""YAML in and out: 1.2 numbers and booleans, duplicate keys refused, every value's line remembered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import ConfigError

#: where a value stands: its keys from the top
Location = tuple[str | int, ...]

#: bounds of a file, and of what its aliases make of it: many times what the largest of ours has
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 2_000_000, 100_000, 64
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where `no` is False and `1e-4` a string; these are the 1.2 core rules, without tags."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            problem = f"a tag ({event.tag}); take it out, every value says itself what it is"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Written so that any YAML reader, 1.1 or 1.2, reads the same values back."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        "-+.0123456789",
    ),
):
    for _side in (_Loader, _Dumper):  # the dumper quotes a text that either version would read as a number
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def load_yaml(path: Path) -> tuple[Any, dict[Location, int]]:
    """Read one YAML file.

    Returns:
        The value, and the line (from 1) of every key and item by its location.

    Raises:
        ConfigError: the file is missing, too large, is not YAML, or repeats a key.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: more than {MAX_BYTES} bytes, which no file of ours has; give another file")
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a readable YAML file") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[Any, dict[Location, int]]:
    """Like `load_yaml`, from text; `name` stands for the file in messages."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = {} if node is None else _Lines(name).of(node)
        return (None if node is None else loader.construct_document(node)), lines
    except RecursionError as error:
        raise ConfigError(f"{name}: not valid YAML: nested too deep; {MAX_DEPTH} levels are enough") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{_place(error, name)}: not valid YAML: {_problem(error)}") from error


class _Lines:
    """Walks a document as it is when every alias is written out, which may be far longer than its file."""

    def __init__(self, name: str) -> None:
        self.name, self.lines, self.characters = name, {}, 0

    def of(self, node: yaml.Node) -> dict[Location, int]:
        self._walk(node, ())
        return self.lines

    def _walk(self, node: yaml.Node, location: Location) -> None:
        self._check_size(node, location)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*location, self._key(key))
                if here in self.lines:
                    self._refuse(
                        key, f"key '{key.value}' stands twice (first in line {self.lines[here]}); keep one of them"
                    )
                self.lines[here] = key.start_mark.line + 1
                self._walk(value, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[(*location, index)] = item.start_mark.line + 1
                self._walk(item, (*location, index))

    def _key(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode):
            self._refuse(key, "a list or a mapping as a key; use a word")
        # as it is written: 1 and 0x1 are two keys, and so they are in JSON
        key.tag = _TEXT
        return key.value

    def _check_size(self, node: yaml.Node, location: Location) -> None:
        self.characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if len(location) > MAX_DEPTH:
            self._refuse(node, f"nested deeper than {MAX_DEPTH} levels, or an alias inside what it stands for")
        if len(self.lines) > MAX_VALUES or self.characters > MAX_BYTES:
            self._refuse(
                node, f"more than {MAX_VALUES} values or {MAX_BYTES} characters with aliases (*) written out; use fewer"
            )

    def _refuse(self, node: yaml.Node, why: str) -> None:
        raise ConfigError(f"{self.name}:{node.start_mark.line + 1}: {why}")


def _place(error: Exception, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    return name if mark is None else f"{name}:{mark.line + 1}"


def _problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error or type(error).__name__)


def _float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = repr(value).replace("inf", ".inf").replace("nan", ".nan")
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _str(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # PyYAML writes this line break as it is, where it is read as a blank
    return dumper.represent_scalar(_TEXT, value, style='"' if "\x85" in value else None)


_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _str)


def dump_yaml(value: Any) -> str:
    """A value of dicts, lists and scalars as YAML text, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
