"""What a resumed study may change, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config import (
    AblationSettings,
    Experiment,
    ReplicateSettings,
    SearchSettings,
    Space,
    apply_overrides,
    differences,
    dump_yaml,
    parse_yaml,
    validate_section,
)

SPACE = validate_section(
    Space, {"parameters": {"lr": {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2}}}, "s.yaml"
)
SEARCH = SearchSettings(space=SPACE, seed=0, dataset="abc")
REPLICATES = ReplicateSettings(arms={"base": Experiment(), "small": Experiment()}, seeds=2, dataset="abc")


def changed(path: str, value: Any) -> SearchSettings:
    return apply_overrides(SEARCH, {path: value})


def test_the_same_settings_have_no_differences() -> None:
    assert differences(SEARCH, SEARCH) == []
    assert differences(REPLICATES, REPLICATES) == []


def test_more_trials_are_no_difference() -> None:
    assert differences(SEARCH, changed("space.search.trials", 99)) == []


def test_the_steps_of_a_path_are_no_difference_and_its_scale_is() -> None:
    factors = {"lr": {"set": {"optimiser.lr": 0.01}}, "batch": {"set": {"training.batch_size": 2}}}
    ablation = {"factors": factors, "design": {"kind": "path"}}
    values = {"ablation": ablation, "scale": "full", "seeds": 3, "dataset": "abc"}
    path = validate_section(AblationSettings, values, "study.yaml")
    assert differences(path, apply_overrides(path, {"ablation.design.steps": ["batch"]})) == []
    assert differences(path, apply_overrides(path, {"ablation.scale.full.seeds": 4})) != []


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("seed", 1, "seed: 0 -> 1"),
        ("dataset", "def", "dataset: abc -> def"),
        ("space.search.strategy", "random", "space.search.strategy: promote -> random"),
        ("space.search.reduction_factor", 4, "space.search.reduction_factor: 3 -> 4"),
        ("space.experiment.training.epochs", 12, "space.experiment.training.epochs: 9 -> 12"),
        ("space.parameters.lr.high", 0.1, "space.parameters.lr.high: 0.01 -> 0.1"),
        ("space.experiment.data.input_size", [64, 64], "space.experiment.data.input_size: [96, 160] -> [64, 64]"),
    ],
)
def test_any_other_change_is_told_with_its_field(path: str, value: Any, line: str) -> None:
    assert differences(SEARCH, changed(path, value)) == [line]


def test_a_section_of_another_kind_shows_the_fields_of_both() -> None:
    found = differences(SEARCH, changed("space.experiment.model.head", {"kind": "linear"}))
    assert found == [
        "space.experiment.model.head.kind: conv_stack -> linear",
        "space.experiment.model.head.channels: 64 -> None",
    ]


def test_a_changed_arm_is_told() -> None:
    other = apply_overrides(REPLICATES, {"arms.small.training.epochs": 3})
    assert differences(REPLICATES, other) == ["arms.small.training.epochs: 9 -> 3"]


@pytest.mark.parametrize("settings", [SEARCH, REPLICATES])
def test_settings_are_the_same_after_writing_and_reading(settings: SearchSettings | ReplicateSettings) -> None:
    text = dump_yaml(settings.model_dump(mode="json"))
    assert validate_section(type(settings), parse_yaml(text, "study.yaml")[0], "study.yaml") == settings
