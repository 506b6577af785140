"""YAML 1.2 in, YAML for any reader out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.config import dump_yaml, load_yaml, parse_yaml
from harness.errors import ConfigError


def value_of(text: str) -> object:
    return parse_yaml(text, "f.yaml")[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("+3", 3),
        ("-7", -7),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("yes", "yes"),
        ("off", "off"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-4'", "1e-4"),
        ("-0x10", "-0x10"),
    ],
)
def test_scalars_follow_the_rules_of_yaml_1_2(text: str, value: object) -> None:
    read = value_of(text)
    assert read == value
    assert type(read) is type(value)


def test_every_key_and_item_remembers_its_line() -> None:
    _, lines = parse_yaml("# a comment\na:\n  b: 1\n  c:\n    - 5\n    - {d: 6}\n", "f.yaml")
    assert lines == {
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"f\.yaml:3: key 'a' stands twice \(first in line 1\)"),
        ("t:\n  x: 1\n  y: {z: 1,\n    z: 2}\n", r"f\.yaml:4: key 'z' stands twice \(first in line 3\)"),
        ("steps:\n  - a: 1\n    a: 2\n", r"f\.yaml:3: key 'a' stands twice \(first in line 2\)"),
        ("a: 1\nb: [1,\n", r"f\.yaml:3: not valid YAML"),
        ("a: 1\n  b: 2\n", r"f\.yaml:2: not valid YAML"),
        ("a: 1\n---\nb: 2\n", r"f\.yaml:2: not valid YAML"),
        ("a: 1\n? [b, c]\n: 2\n", r"f\.yaml:2: a list or a mapping as a key"),
        (
            "a: 1\nb: !!python/object/apply:os.getcwd []\n",
            r"f\.yaml:2: not valid YAML: a tag \(.*os\.getcwd\); take it out",
        ),
        ("a: \0", r"f\.yaml: not valid YAML: unacceptable character"),
        ("a: &x [*x]", r"f\.yaml:1: nested deeper than 64 levels, or an alias inside what it stands for"),
        ("a: *nowhere", r"f\.yaml:1: not valid YAML: found undefined alias"),
    ],
)
def test_a_file_that_is_not_our_yaml_is_refused_with_its_name_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        value_of(text)


def test_the_same_key_in_two_mappings_is_no_repetition() -> None:
    assert value_of("a: {x: 1}\nb: {x: 2}\n") == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(.*No such file.*give a readable YAML file"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read \(.*utf-8"):
        load_yaml(tmp_path / "latin.yaml")


texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn"))) | st.sampled_from(
    ["1e-4", "1e5", "08", "0o17", "0x1f", "1_0", "1:30", "no", "yes", "~", "null", "true", "=", "<<", "", " x", "a: b"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8)


def same(a: object, b: object) -> bool:
    """Equal, and of the same type all the way down: True is not 1, 1 is not 1.0."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(values)
def test_what_is_written_is_read_back_the_same(value: object) -> None:
    assert same(value_of(dump_yaml(value)), value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_yaml_1_1_reader_reads_our_floats_too(value: float) -> None:
    read = yaml.safe_load(dump_yaml({"x": value}))["x"]
    assert type(read) is float
    assert read == value


def test_keys_are_written_in_their_order() -> None:
    assert dump_yaml({"b": 1, "a": [1e-4]}) == "b: 1\na:\n- 0.0001\n"
