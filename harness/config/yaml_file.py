"""YAML in and out: 1.2 numbers and booleans, duplicate keys refused, every value's line remembered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from harness.errors import ConfigError

#: where a value stands: its keys from the top
Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where `no` is False and `1e-4` a string; these are the 1.2 core rules."""


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
        ConfigError: the file is missing, is not YAML, or repeats a key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a readable YAML file") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[Any, dict[Location, int]]:
    """Like `load_yaml`, from text; `name` stands for the file in messages."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        if node is not None:
            _collect_lines(node, (), lines, name)
        return (None if node is None else loader.construct_document(node)), lines
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{_place(error, name)}: not valid YAML: {_problem(error)}") from error


def _collect_lines(node: yaml.Node, location: Location, lines: dict[Location, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{name}:{key.start_mark.line + 1}: a list or a mapping as a key; use a word")
            here = (*location, key.value)
            if here in lines:
                raise ConfigError(
                    f"{name}:{key.start_mark.line + 1}: key '{key.value}' stands twice "
                    f"(first in line {lines[here]}); keep one of them"
                )
            lines[here] = key.start_mark.line + 1
            _collect_lines(value, here, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*location, index)] = item.start_mark.line + 1
            _collect_lines(item, (*location, index), lines, name)


def _place(error: Exception, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    return name if mark is None else f"{name}:{mark.line + 1}"


def _problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error or type(error).__name__)


def _float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _float)


def dump_yaml(value: Any) -> str:
    """A value of dicts, lists and scalars as YAML text, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
