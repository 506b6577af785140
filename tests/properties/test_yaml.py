"""Any file is read as YAML, or refused by its name: soon, and without running what it says."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.config import Experiment, dump_yaml, load_yaml, parse_yaml, read_section, validate_section
from harness.config.yaml_file import MAX_BYTES
from harness.errors import ConfigError

bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)
#: the marks of YAML close to each other
marks = st.lists(
    st.sampled_from(
        list("-:?,[]{}&*!|>'\"%@`#~ \n\t\\ab1.") + ["- ", ": ", "\n  ", "&a ", "*a", "!!", "0x", "---\n", "<<"]
    ),
    max_size=30,
).map("".join)


def billion_laughs(levels: int, word: str = "lol") -> str:
    """Ten to the power of `levels` words, in a file of a few lines."""
    lines = [f"a0: &a0 [{', '.join([word] * 10)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def check_read_or_refused(text: str) -> None:
    try:
        value, lines = parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert str(error).startswith("f.yaml")
        return
    assert all(isinstance(line, int) and line >= 1 for line in lines.values())
    try:
        experiment = validate_section(Experiment, {} if value is None else value, "f.yaml", lines)
    except ConfigError as error:
        assert str(error).startswith("f.yaml")
    else:
        assert isinstance(experiment, Experiment)


@bounded
@given(marks | st.text())
@example("a: !!bool maybe")
@example("a: !!float ''")
@example("a: !!int [1]")
@example("a: !!timestamp 2024-01-01")
@example("!!omap [a: 1]")
@example("a: ! b")
@example("a: 0x" + "f" * 5000)
@example("a: " + "9" * 5000)
@example("a: .nan")
@example("a: -.inf")
@example("a: 1e999999999")
@example('a: "\\ud800"')
@example("? {a: b}\n: c")
@example("&a {x: *a}")
@example("\ufeffa: 1")
def test_any_text_is_read_or_refused_with_the_name_of_its_file(text: str) -> None:
    check_read_or_refused(text)


@bounded
@given(st.binary() | marks.map(str.encode))
@example(b"\xff\xfea\x00:\x00")
@example(b"a: \xe9")
@example(b"\x00")
@example(b"a: 1\r\nb: 2\r")
def test_any_bytes_are_read_or_refused_with_the_name_of_their_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "some.yaml"
    path.write_bytes(data)
    try:
        value, _ = load_yaml(path)
    except ConfigError as error:
        assert str(error).startswith(str(path))
    else:
        assert value == parse_yaml(data.decode(), "again")[0]


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {}']",
        "!!binary aGVsbG8=",
        "!!set {{a, b}}",
        "!mine 3",
    ],
)
def test_a_tag_is_refused_with_its_line_and_runs_nothing(tmp_path: Path, tagged: str) -> None:
    path = tmp_path / "tagged.yaml"
    path.write_text("training: {}\ndata: " + tagged.format(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"tagged\.yaml:2: not valid YAML: a tag \(.*take it out"):
        read_section(Experiment, path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("levels", [6, 9, 40])
def test_a_document_that_grows_by_its_aliases_is_refused(levels: int) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml:\d+: more than 100000 values or 2000000 characters with aliases"):
        parse_yaml(billion_laughs(levels), "f.yaml")


def test_a_long_text_that_is_repeated_by_aliases_is_refused() -> None:
    text = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 5000)}]"
    with pytest.raises(ConfigError, match=r"^f\.yaml:\d: more than .* characters with aliases"):
        parse_yaml(text, "f.yaml")


def test_a_few_aliases_are_written_out() -> None:
    assert parse_yaml(billion_laughs(3), "f")[0]["a2"] == [[["lol"] * 10] * 10] * 10


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: *a}", "&a {b: [1, {c: *a}]}"])
def test_an_alias_inside_what_it_stands_for_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml:1: nested deeper than 64 levels, or an alias inside"):
        parse_yaml(text, "f.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1000 + "]" * 1000,
        "[" * 100_000,
        "{a: " * 1000 + "}" * 1000,
        "\n".join(" " * n + "a:" for n in range(1000)),
        "- " * 1000 + "a",
        "[" * 66 + "]" * 66,
    ],
    ids=["lists", "open", "mappings", "block", "dashes", "just too deep"],
)
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml(:\d+)?: (not valid YAML: )?nested (too deep|deeper than 64)"):
        parse_yaml(text, "f.yaml")


def test_nesting_of_64_levels_below_the_first_is_read() -> None:
    assert parse_yaml("[" * 65 + "]" * 65, "f")[0] != []


@pytest.mark.parametrize(
    "twice", ["a: 1\n'a': 2", '1: a\n"1": b', "{a: 1, a: 1}", "a: 1\nb: {c: 1, c: 2}", "~: 1\n~: 2"]
)
def test_a_key_that_stands_twice_is_refused(twice: str) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml:\d: key '.' stands twice \(first in line \d\); keep one"):
        parse_yaml(twice, "f.yaml")


def test_a_key_is_what_is_written() -> None:
    # as numbers the first two would be one key, and one of them lost
    assert parse_yaml("1: a\n0x1: b\n1.0: c\ntrue: d\n~: e\n", "f")[0] == dict(
        zip(["1", "0x1", "1.0", "true", "~"], "abcde", strict=True)
    )


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999", "9223372036854775808", "0x" + "f" * 4000])
def test_a_number_that_no_field_holds_is_refused_with_its_line(tmp_path: Path, number: str) -> None:
    path = tmp_path / "number.yaml"
    path.write_text(f"# a comment\ntraining:\n  epochs: {number}\n")
    with pytest.raises(
        ConfigError, match=r"number\.yaml:3: training\.epochs: (input should be a finite|a whole number)"
    ):
        read_section(Experiment, path)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "---\n", "~", "null"])
def test_an_empty_file_is_the_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.yaml").write_text(text)
    assert read_section(Experiment, tmp_path / "empty.yaml") == Experiment()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read .*Is a directory.*give a readable YAML file"):
        load_yaml(tmp_path)


def test_a_file_of_100_megabytes_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.yaml"
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    asked: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return super().read(size)

    monkeypatch.setattr("builtins.open", lambda name, mode: Counting(name, mode))
    with pytest.raises(ConfigError, match=r"large\.yaml: more than 2000000 bytes, which no file of ours has"):
        load_yaml(path)
    assert asked == [MAX_BYTES + 1]


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="^/dev/zero: more than 2000000 bytes"):
        load_yaml(Path("/dev/zero"))


def test_a_file_may_come_through_a_pipe(tmp_path: Path) -> None:
    # as in `harness train <(...)`
    read, write = os.pipe()
    os.write(write, b"training: {epochs: 3}\n")
    os.close(write)
    assert load_yaml(Path(f"/dev/fd/{read}"))[0] == {"training": {"epochs": 3}}
    os.close(read)


@bounded
@given(st.text() | st.text(alphabet="\x85\u2028\u2029\ufeff\t\r\n\x1b '\":#-"))
@example("a\x85b")
def test_any_text_that_we_write_is_read_back_by_us_and_by_others(text: str) -> None:
    for value in ({"a": text}, {text: 1}, [text]):
        written = dump_yaml(value)
        assert parse_yaml(written, "f")[0] == value
        assert yaml.safe_load(written) == value
