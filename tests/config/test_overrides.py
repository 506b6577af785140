"""Dotted overrides: typed, checked as a whole, in order."""

from __future__ import annotations

import pytest

from harness.config import Experiment, apply_overrides, parse_override
from harness.errors import ConfigError


def test_a_field_is_replaced_and_everything_else_stays() -> None:
    changed = apply_overrides(Experiment(), {"loss.dice.weight": 0.5})
    assert changed.loss.dice.weight == 0.5
    assert changed.model_copy(update={"loss": Experiment().loss}) == Experiment()


def test_no_override_changes_nothing() -> None:
    assert apply_overrides(Experiment(), {}) == Experiment()


def test_a_tagged_section_is_replaced_as_a_whole() -> None:
    changed = apply_overrides(Experiment(), {"optimiser": {"kind": "sgd", "lr": 0.1}})
    assert (changed.optimiser.kind, changed.optimiser.lr, changed.optimiser.momentum) == ("sgd", 0.1, 0.9)


def test_a_later_path_changes_a_default_of_a_replaced_section() -> None:
    changed = apply_overrides(Experiment(), {"model.head": {"kind": "upernet_style"}, "model.head.channels": 64})
    assert (changed.model.head.kind, changed.model.head.channels) == ("upernet_style", 64)


def test_an_earlier_path_into_a_section_is_lost_when_the_section_is_replaced() -> None:
    changed = apply_overrides(Experiment(), {"model.head.channels": 8, "model.head": {"kind": "conv_stack"}})
    assert changed.model.head.channels == 256


@pytest.mark.parametrize(
    "overrides",
    [
        {"schedule": {"kind": "cosine", "warmup_epochs": 12}, "training.epochs": 20},
        {"schedule.warmup_epochs": 12, "training.epochs": 20},
        {"loss.cross_entropy": {"weight": 0.0}, "loss.dice.weight": 1.0},
    ],
)
def test_rules_between_fields_are_checked_after_the_last_override_only(overrides: dict[str, object]) -> None:
    assert apply_overrides(Experiment(), overrides) != Experiment()


def test_a_list_and_a_free_mapping_are_given_whole() -> None:
    changed = apply_overrides(Experiment(), {"data.input_size": [64, 112], "taxonomy.merge": {"Logs": "ignore"}})
    assert changed.data.input_size == (64, 112)
    assert changed.taxonomy.merge == {"Logs": "ignore"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lss.dice.weight", r"override lss\.dice\.weight: there is no field 'lss'; did you mean 'loss'\?"),
        ("loss.dise.weight", r"there is no field 'loss\.dise'; did you mean 'dice'\?"),
        ("loss.dice.wieght", r"there is no field 'loss\.dice\.wieght'; did you mean 'weight'\?"),
        ("model.head.dropout", r"no field 'model\.head\.dropout' \(kind 'conv_stack'\); known: channels, kind"),
        ("training.epochs.x", r"no field 'training\.epochs\.x'; the field above it holds 9: set that one as a whole"),
        ("taxonomy.merge.Logs", r"the field above it holds \{\}: set that one as a whole"),
        ("data.input_size.0", r"the field above it holds \[96, 160\]: set that one as a whole"),
        ("", r"there is no field ''; known: augmentation, data"),
    ],
)
def test_a_path_that_does_not_exist_is_refused_with_the_part_that_fails(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(Experiment(), {path: 1})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.epochs", "3", r"^override: training\.epochs: input should be a valid integer, not '3'$"),
        ("training", 3, r"^override: training: input should be an object, not 3$"),
        (
            "model.head",
            {"kind": "conv_stak"},
            r"^override: model\.head: kind 'conv_stak' .*did you mean 'conv_stack'",
        ),
        ("model.head", {"channels": 8}, r"^override: model\.head: needs a 'kind'; one of 'linear'"),
        ("data.root", object(), r"^override: data\.root: a value of type object; use only numbers, text"),
        ("optimiser.lr", float("nan"), r"^override: optimiser\.lr: input should be a finite number, not nan$"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(Experiment(), {path: value})


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimiser.lr=1e-4", "optimiser.lr", 1e-4),
        ("data.root=a=b", "data.root", "a=b"),
        ("training.patience=", "training.patience", None),
        ("augmentation.policy = none", "augmentation.policy", "none"),
        ("data.input_size=[64, 112]", "data.input_size", [64, 112]),
        ("model.head={kind: linear}", "model.head", {"kind": "linear"}),
    ],
)
def test_an_override_on_the_command_line_is_a_path_and_a_yaml_value(text: str, path: str, value: object) -> None:
    assert parse_override(text) == (path, value)


def test_an_override_without_an_equals_sign_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"override 'training\.epochs 3' has no '='; write it as path\.to\.field=val"):
        parse_override("training.epochs 3")


def test_an_override_whose_value_is_no_yaml_names_its_path() -> None:
    with pytest.raises(ConfigError, match=r"^override model\.head:1: not valid YAML"):
        parse_override("model.head={kind: [")
