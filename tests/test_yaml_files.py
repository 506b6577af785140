"""One contract for every committed YAML file of the search spaces and the ablations."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import (
    Ablation,
    Experiment,
    Space,
    apply_overrides,
    check_space,
    dump_yaml,
    is_active,
    load_yaml,
    parse_yaml,
    read_section,
    to_overrides,
    validate_section,
)
from harness.config.space import ChoiceParameter, Scalar

ROOT = Path(__file__).resolve().parents[1]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
ABLATIONS = sorted((ROOT / "ablations").glob("*.yaml"))
FILES = SPACES + ABLATIONS
HEADINGS = ["Question", "Command", "Time", "Reference"]


def comments(path: Path) -> list[str]:
    """The comment lines with which a file begins."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:end]


def test_there_is_a_default_space() -> None:
    assert ROOT / "search_spaces" / "default.yaml" in SPACES


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_file_begins_with_the_question_the_command_the_time_and_the_reference(path: Path) -> None:
    found = [line.removeprefix("#").strip().split(":")[0] for line in comments(path)]
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS
    said = {line.split(":")[0].strip("# "): line.partition(":")[2].strip() for line in comments(path)}
    assert all(said[heading] for heading in HEADINGS), "a heading without words"


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_file_is_our_yaml_and_stays_the_same_when_written_again(path: Path) -> None:
    value, lines = load_yaml(path)
    assert isinstance(value, dict)
    assert set(lines)
    assert parse_yaml(dump_yaml(value), path.name)[0] == value


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.name)
def test_an_ablation_says_its_command_and_how_long_it_takes_at_both_ends(path: Path) -> None:
    text = " ".join(line.strip("# ") for line in comments(path))
    assert f"harness ablate ablations/{path.name} --scale smoke" in text
    time = text.partition("Time:")[2].partition("Reference:")[0]
    assert "smoke:" in time and "full:" in time


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda p: p.name)
def test_an_ablation_is_the_same_after_writing_and_reading(path: Path) -> None:
    ablation = read_section(Ablation, path)
    text = dump_yaml(ablation.model_dump(mode="json"))
    assert validate_section(Ablation, parse_yaml(text, path.name)[0], path.name) == ablation


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.name)
def test_every_choice_and_both_ends_of_every_range_fit_the_experiment(path: Path) -> None:
    check_space(read_section(Space, path))


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.name)
def test_a_space_is_the_same_after_writing_and_reading(path: Path) -> None:
    space = read_section(Space, path)
    text = dump_yaml(space.model_dump(mode="json"))
    assert validate_section(Space, parse_yaml(text, path.name)[0], path.name) == space


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.name)
def test_the_default_experiment_is_in_the_space(path: Path) -> None:
    space = read_section(Space, path)
    picked = picked_by(space, space.experiment)
    assert apply_overrides(space.experiment, to_overrides(space, picked)) == space.experiment


def picked_by(space: Space, experiment: Experiment) -> dict[str, Scalar]:
    """The values with which the space gives back an Experiment, for every parameter that is active then."""
    picked: dict[str, Scalar] = {}
    for name, parameter in space.parameters.items():
        if not is_active(parameter, picked):
            continue
        if isinstance(parameter, ChoiceParameter):
            # a later parameter may refine what this one sets: the kind of a section has to agree
            labels = [
                label
                for label, value in parameter.values().items()
                if agrees(apply_overrides(experiment, {parameter.field: value}), experiment, parameter.field)
            ]
            assert labels, f"parameter '{name}': the default is none of its choices"
            picked[name] = labels[0]
        else:
            value = reach(experiment, parameter.field)
            assert parameter.low <= value <= parameter.high, f"parameter '{name}': the default {value} is outside"
            picked[name] = value
    return picked


def agrees(one: Experiment, other: Experiment, field: str) -> bool:
    """Are the fields equal, or sections of the same kind?"""
    first, second = reach(one, field), reach(other, field)
    kind = getattr(first, "kind", None)
    return first == second if kind is None else kind == getattr(second, "kind", None)


def reach(experiment: Experiment, path: str) -> object:
    value: object = experiment
    for part in path.split("."):
        value = getattr(value, part)
    return value
