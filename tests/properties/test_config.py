"""Whatever is put at whatever field: an object that is written and read back the same, or a message with the field."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.cli.app import parse_duration
from harness.cli.inputs import change_experiment, read_space
from harness.cli.models import _tta_overrides
from harness.config import (
    Ablation,
    Experiment,
    Section,
    Space,
    apply_overrides,
    dump_yaml,
    fingerprint,
    parse_override,
    parse_yaml,
    read_section,
    to_overrides,
    validate_section,
)
from harness.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
BASES: dict[type[Section], dict[str, Any]] = {
    Experiment: Experiment().model_dump(mode="json"),
    Space: read_section(Space, REPOSITORY / "search_spaces" / "default.yaml").model_dump(mode="json"),
    Ablation: read_section(Ablation, REPOSITORY / "ablations" / "ignitia.yaml").model_dump(mode="json"),
}
Path_ = tuple[str | int, ...]


def paths_of(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Every place in a value of dicts and lists, the sections too."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in inside:
        yield from paths_of(inner, (*path, part))


def with_at(values: Any, path: Path_, new: Any) -> Any:
    if not path:
        return new
    changed = copy.deepcopy(values)
    here = changed
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = new
    return changed


texts = st.text(max_size=6) | st.sampled_from(
    [
        "\ud800",
        "\0",
        "\x85",
        "a\nb",
        "\x1b[2J",
        "[red]",
        "../../x",
        "/etc",
        "nan",
        "1e400",
        "none",
        "true",
        "",
        "x" * 999,
    ]
)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(2**63), 2**63, 1e308, 5e-324, -0.0])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)
cases = st.one_of(*(st.tuples(st.just(s), st.sampled_from(list(paths_of(base)))) for s, base in BASES.items()))


def check_reads_or_names(section: type[Section], path: Path_, value: Any) -> None:
    try:
        read = validate_section(section, with_at(BASES[section], path, value), "f.yaml")
    except ConfigError as error:
        message = str(error)
        assert message.startswith("f.yaml: ")
        assert not path or any(str(part) in message for part in path), message
        assert len(message) < 20_000
        return
    again = validate_section(
        section, parse_yaml(dump_yaml(read.model_dump(mode="json")), "again.yaml")[0], "again.yaml"
    )
    assert again == read
    assert fingerprint(again) == fingerprint(read)


@bounded
@given(cases, values)
@example((Experiment, ("schedule", "warmup_epochs")), 99)
@example((Experiment, ("data", "root")), "\0")
@example((Experiment, ("data", "root")), "a\x85b")
@example((Experiment, ("data", "root")), "\ud800")
@example((Experiment, ("data", "synthetic", "seed")), 2**63)
@example((Ablation, ("scale", "full", "set")), {"optimiser.lr": float("nan")})
@example((Ablation, ("scale", "full", "set")), {"optimiser.lr": 10**5000})
@example((Space, ("parameters", "head", "choices")), {"a": {"kind": float("inf")}, "b": [[[]]]})
@example((Experiment, ()), [])
def test_any_value_at_any_field_is_read_and_written_or_refused_by_name(
    case: tuple[type[Section], Path_], value: Any
) -> None:
    check_reads_or_names(*case, value)


@pytest.mark.parametrize(
    "value", [2**63, 10**5000, -(10**400), float("nan"), float("inf"), "\ud800", "a\0b"], ids=lambda v: type(v).__name__
)
def test_what_cannot_be_stored_is_refused_with_its_field_and_line(value: object) -> None:
    with pytest.raises(
        ConfigError, match=r"^f\.yaml:7: data\.root: (a whole number|input should be a finite|text with)"
    ):
        validate_section(Experiment, {"data": {"root": value}}, "f.yaml", {("data",): 6, ("data", "root"): 7})


def test_nesting_without_end_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="^f: data: nested deeper than 64 levels"):
        validate_section(Experiment, {"data": deep}, "f")


def test_a_thousand_mistakes_are_a_message_of_twenty() -> None:
    with pytest.raises(ConfigError, match=r"and 980 more$") as error:
        validate_section(Experiment, {f"key{i}": i for i in range(1000)}, "f")
    assert len(str(error.value).splitlines()) == 21


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError, match="training.epochs: .*x{199}\\.\\.\\.$"):
        validate_section(Experiment, {"training": {"epochs": "x" * 100_000}}, "f")


@bounded
@given(st.sampled_from([".".join(map(str, p)) for p in paths_of(BASES[Experiment]) if p]), texts | values.map(str))
@example("data.root", "!!python/object/apply:os.system [x]")
@example("data.root", '"\\ud800"')
@example("data.input_size", "&a [*a, 1]")
@example("training.epochs", "0x" + "f" * 5000)
@example("training.epochs", "9" * 5000)
@example("model.head", "[" * 5000)
def test_any_text_for_any_field_is_an_override_or_refused_by_name(field: str, text: str) -> None:
    try:
        changed = change_experiment(Experiment(), None, [f"{field}={text}"])
    except ConfigError as error:
        assert any(part in str(error) for part in field.split(".")), error
    else:
        assert parse_yaml(dump_yaml(changed.model_dump(mode="json")), "f")[0] == changed.model_dump(mode="json")


@bounded
@given(st.text() | st.text(alphabet="ab.=[]{}: -_&*!\n\0"))
def test_any_text_at_all_as_an_override_is_refused_or_taken(text: str) -> None:
    try:
        apply_overrides(Experiment(), dict([parse_override(text)]))
    except ConfigError as error:
        assert "override" in str(error)
    else:
        assert text.partition("=")[0].strip() in BASES[Experiment]


picks = st.dictionaries(st.sampled_from(["head", "lr", "gone"]), values, max_size=3)


@bounded
@given(picks)
@example({"head": ["linear"]})
@example({"head": "gone"})
def test_any_picked_values_make_overrides_or_are_refused(picked: dict[str, Any]) -> None:
    space = validate_section(Space, BASES[Space], "space")
    try:
        apply_overrides(space.experiment, to_overrides(space, picked))
    except ConfigError as error:
        assert str(error).startswith(("override", "parameter"))


@bounded
@given(st.text() | st.text(alphabet="0123456789.,:smhd -+e\n१"))
@example("9" * 5000 + "d")
@example("1h30m")
@example("1..5s")
def test_any_text_is_a_duration_in_seconds_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except Exception as error:
        assert type(error).__name__ == "BadParameter" and "is no duration; write 90s" in str(error)
    else:
        assert 0 <= seconds < float("inf")
        assert text.isascii() and text[-1] in "smhd"


@bounded
@given(st.text() | st.text(alphabet="0123456789.,flip[]{}:&* -e\n"))
@example("0.75,]x[")
@example("1.0], flip: {a")
@example("nan")
@example("")
def test_any_text_is_a_list_of_views_or_refused(text: str) -> None:
    try:
        changed = change_experiment(Experiment(), None, _tta_overrides(text))
    except ConfigError as error:
        assert "evaluation.tta" in str(error)
    else:
        others = changed.model_copy(update={"evaluation": Experiment().evaluation})
        assert others == Experiment()


@bounded
@given(st.integers(), st.text())
def test_any_number_of_trials_or_epochs_makes_a_space_or_is_refused(number: int, text: str) -> None:
    try:
        space = read_space(None, None, None, [f"training.batch_size={text}"], trials=number, max_epochs=number)
    except ConfigError:
        return
    assert (space.search.trials, space.experiment.training.epochs) == (number, number)
