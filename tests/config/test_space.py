"""The Space: ranges, choices, conditions, and what is found out before the first trial."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config import Space, apply_overrides, check_space, is_active, to_overrides, validate_section
from harness.errors import ConfigError

LR = {"kind": "float", "field": "optimiser.lr", "low": 1e-4, "high": 1e-2}
BATCH = {"kind": "int", "field": "training.batch_size", "low": 2, "high": 8}
HEAD = {
    "kind": "choice",
    "field": "model.head",
    "choices": {"linear": {"kind": "linear"}, "conv": {"kind": "conv_stack"}},
}
CHANNELS = {"kind": "choice", "field": "model.head.channels", "choices": [8, 16], "when": {"head": ["conv"]}}
NORMALISE = {"kind": "choice", "field": "data.normalise", "choices": ["imagenet", "unit"]}


def space(**parameters: dict[str, Any]) -> Space:
    return validate_section(Space, {"parameters": parameters}, "s.yaml")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"parameters: has 0 items; it takes 1 or more"),
        ({"lr": LR | {"low": 1.0, "high": 0.1}}, r"parameter 'lr': low 1\.0 must be below high 0\.1"),
        ({"lr": LR | {"low": 0.1, "high": 0.1}}, r"parameter 'lr': low 0\.1 must be below high 0\.1"),
        ({"lr": LR | {"low": 0.0, "log": True}}, r"'lr': a logarithmic scale needs low above 0, not 0\.0"),
        ({"lr": LR | {"log": True, "step": 1e-3}}, r"'lr': log and step exclude each other; remove one"),
        ({"lr": LR | {"log": True, "step": 1.0}}, r"'lr': log and step exclude each other; remove one"),
        ({"batch": BATCH | {"log": True, "step": 2}}, r"'batch': log and step exclude each other; remove one"),
        ({"batch": BATCH | {"low": 2.0}}, r"parameters\.batch\.low: input should be a valid integer, not 2\.0"),
        ({"n": NORMALISE | {"choices": ["unit"]}}, r"parameter 'n' has 1 choices; it needs two or more"),
        ({"n": NORMALISE | {"choices": ["unit", "unit"]}}, r"parameter 'n' has a choice twice; keep one of them"),
        (
            {"channels": CHANNELS},
            r"'channels' depends on 'head', which must be a parameter above it; above it are: no",
        ),
        ({"channels": CHANNELS, "head": HEAD}, r"'channels' depends on 'head', which must be a parameter above it"),
        (
            {"head": HEAD, "channels": CHANNELS | {"when": {"head": ["conf"]}}},
            r"parameter 'channels': 'head' never takes \['conf'\]; it takes: linear, conv",
        ),
        (
            {"head": HEAD, "channels": CHANNELS | {"when": {"head": []}}},
            r"parameters\.channels\.when\.head: has 0 items; it takes 1 or more",
        ),
        (
            {"lr": LR, "n": NORMALISE | {"when": {"lr": [0.1]}}},
            r"'n' depends on 'lr', which is no choice; only",
        ),
        ({"lr": LR | {"kind": "flaot"}}, r"parameters\.lr: kind 'flaot' does not exist; did you mean 'float'\?"),
        ({"a": LR, "b": LR}, r"parameter 'b' sets optimiser\.lr and undoes 'a', .*remove one, or give them conditions"),
        (
            {"channels": CHANNELS | {"when": {}}, "head": HEAD},
            r"parameter 'head' sets model\.head and undoes 'channels', which sets model\.head\.channels; put it above",
        ),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(**parameters)


@pytest.mark.parametrize(
    ("parameter", "prior", "message"),
    [
        (
            LR,
            {"centre": 0.1},
            r"parameter 'x': prior\.centre 0\.1 lies outside its range; give one from 0\.0001 to 0\.01",
        ),
        (LR, {"centre": "fast"}, r"prior\.centre 'fast' is no number; give one from 0\.0001 to 0\.01"),
        (LR, {"centre": True}, r"prior\.centre True is no number"),
        (BATCH, {"centre": 3.5}, r"prior\.centre 3\.5 is no whole number; give one from 2 to 8"),
        (HEAD, {"centre": "conf"}, r"prior\.centre 'conf' is no choice of it; it has: linear, conv"),
        (LR, {"centre": 1e-3, "confidence": 0.0}, r"prior\.confidence: .*greater than 0"),
        (LR, {"centre": 1e-3, "confidence": 1.0}, r"prior\.confidence: .*less than 1"),
        (LR, {"confidence": 0.5}, r"prior\.centre"),
    ],
)
def test_a_prior_that_its_parameter_cannot_have_is_refused(parameter, prior, message) -> None:
    with pytest.raises(ConfigError, match=message):
        space(x=parameter | {"prior": prior})


def test_a_prior_is_there_where_it_is_given_and_as_sure_as_not() -> None:
    what = space(lr=LR | {"prior": {"centre": 1e-3}}, batch=BATCH, head=HEAD | {"prior": {"centre": "conv"}})
    assert [p.prior and (p.prior.centre, p.prior.confidence) for p in what.parameters.values()] == [
        (1e-3, 0.5), None, ("conv", 0.5)
    ]  # fmt: skip


def test_log_with_the_default_step_is_allowed() -> None:
    assert space(lr=LR | {"log": True}, batch=BATCH | {"log": True}).parameters["batch"].step == 1


def test_two_parameters_may_set_one_field_under_conditions_that_exclude_each_other() -> None:
    wide = CHANNELS | {"choices": [64, 128], "when": {"head": ["linear"]}}
    assert list(space(head=HEAD, narrow=CHANNELS, wide=wide).parameters) == ["head", "narrow", "wide"]


def test_a_parameter_is_active_where_all_its_conditions_hold() -> None:
    what = space(head=HEAD, n=NORMALISE, channels=CHANNELS | {"when": {"head": ["conv"], "n": ["unit"]}})
    channels = what.parameters["channels"]
    assert is_active(channels, {"head": "conv", "n": "unit"})
    assert not is_active(channels, {"head": "linear", "n": "unit"})
    assert not is_active(channels, {"head": "conv", "n": "imagenet"})
    assert not is_active(channels, {"n": "unit"})
    assert is_active(what.parameters["head"], {})


def test_picked_labels_become_values_by_path_in_the_order_of_the_space() -> None:
    what = space(head=HEAD, channels=CHANNELS, lr=LR)
    overrides = to_overrides(what, {"lr": 0.005, "channels": 16, "head": "conv"})
    assert list(overrides.items()) == [
        ("model.head", {"kind": "conv_stack"}),
        ("model.head.channels", 16),
        ("optimiser.lr", 0.005),
    ]
    experiment = apply_overrides(what.experiment, overrides)
    assert (experiment.model.head.channels, experiment.optimiser.lr) == (16, 0.005)


def test_what_was_not_picked_is_not_overridden() -> None:
    assert to_overrides(space(head=HEAD, channels=CHANNELS), {"head": "linear"}) == {"model.head": {"kind": "linear"}}


def test_the_default_of_a_space_is_its_own_experiment() -> None:
    what = validate_section(Space, {"experiment": {"training": {"epochs": 3}}, "parameters": {"lr": LR}}, "s.yaml")
    assert (what.experiment.training.epochs, what.experiment.training.batch_size) == (3, 4)


def test_a_good_space_passes_with_its_conditions() -> None:
    check_space(space(head=HEAD, channels=CHANNELS, lr=LR, batch=BATCH, normalise=NORMALISE))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"lr": LR | {"field": "optimiser.rate"}},
            r"^parameter 'lr' at 0\.0001: override optimiser\.rate: there is",
        ),
        (
            {"lr": LR | {"high": 11.0}},
            r"^parameter 'lr' at 11\.0: .*less than or equal to 10, not 11\.0",
        ),
        ({"lr": LR | {"low": 0.0}}, r"^parameter 'lr' at 0\.0: .*input should be greater than 0"),
        ({"b": LR | {"field": "training.batch_size"}}, r"^parameter 'b' at 0\.0001: .*valid integer, not 0\.0001"),
        (
            {"n": NORMALISE | {"choices": ["unit", "imagnet"]}},
            r"^parameter 'n' at 'imagnet': .*data\.normalise: 'imagnet' is not a choice; did you mean 'imagenet'\?",
        ),
        (
            {"head": HEAD, "channels": CHANNELS | {"when": {"head": ["linear"]}}},
            r"^parameter 'channels' at 8: .*there is no field 'model\.head\.channels' \(kind 'linear'\)",
        ),
        (
            {"head": HEAD | {"choices": {"linear": {"kind": "linear"}, "conv": {"kind": "conv_stak"}}}},
            r"^parameter 'head' at 'conv': .*model\.head: kind 'conv_stak' does not exist; did you mean 'conv_stack'\?",
        ),
    ],
)
def test_check_space_names_the_parameter_the_value_and_the_fault(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(space(**parameters))


def test_check_space_follows_conditions_of_conditions() -> None:
    inner = {
        "kind": "choice",
        "field": "optimiser.lr",
        "choices": [1e-3, 20.0],
        "when": {"channels": [16]},
    }
    with pytest.raises(ConfigError, match=r"^parameter 'inner' at 20\.0: .*optimiser\.lr"):
        check_space(space(head=HEAD, channels=CHANNELS, inner=inner))
