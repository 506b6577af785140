"""What an Ablation refuses as a whole, field by field being pydantic's."""

from __future__ import annotations

import pytest

from harness.config import parse_yaml, validate_section
from harness.config.ablation import Ablation
from harness.errors import ConfigError

ARMS = {"a": {}, "b": {"set": {"training.epochs": 1}}}
FACTORS = {"x": {"set": {"training.epochs": 1}}, "y": {"set": {"training.drop_last": True}}}
NAMED = [{"kind": "ladder", "rungs": ["a", "b"]}, {"kind": "arms", "baseline": "a", "arms": ["b"]}]
OF_FACTORS = [{"kind": kind} for kind in ("one_factor", "leave_one_out", "factorial", "shapley", "path")]


def kind(design: dict) -> str:
    return design["kind"]


def read(**values) -> Ablation:
    return validate_section(Ablation, values, "test.yaml")


@pytest.mark.parametrize("design", NAMED, ids=kind)
def test_factors_beside_a_design_of_named_arms_are_refused_with_the_designs_that_use_them(design):
    assert read(arms=ARMS, design=design).factors == {}
    message = (
        rf"factors x, y: a {design['kind']} design is made of named arms alone; take factors out, or use a design of "
        "factors: one_factor, leave_one_out, factorial, shapley, path"
    )
    with pytest.raises(ConfigError, match=message):
        read(arms=ARMS, factors=FACTORS, design=design)


@pytest.mark.parametrize("design", OF_FACTORS, ids=kind)
def test_arms_beside_a_design_of_factors_are_refused_with_the_designs_that_use_them(design):
    assert read(factors=FACTORS, design=design).arms == {}
    message = (
        rf"arms a, b: a {design['kind']} design is made of factors alone; take arms out, or use a design of arms: "
        "ladder or arms"
    )
    with pytest.raises(ConfigError, match=message):
        read(arms=ARMS, factors=FACTORS, design=design)


def test_one_left_over_arm_is_enough_to_be_refused_in_a_file_too():
    text = (
        "factors:\n  x: {set: {training.epochs: 1}}\n  y: {set: {training.drop_last: true}}\n"
        "arms: {old: {}}\ndesign: {kind: one_factor}\n"
    )
    value, lines = parse_yaml(text, "f.yaml")
    with pytest.raises(ConfigError, match="arms old: a one_factor design"):
        validate_section(Ablation, value, "f.yaml", lines)


@pytest.mark.parametrize("design", OF_FACTORS, ids=kind)
def test_a_design_of_factors_needs_two(design):
    with pytest.raises(ConfigError, match=f"a {design['kind']} design needs two factors or more, not 1"):
        read(factors={"x": FACTORS["x"]}, design=design)


@pytest.mark.parametrize("design", NAMED, ids=kind)
def test_an_arm_that_is_not_there_is_refused_with_those_that_are(design):
    with pytest.raises(ConfigError, match=r"the design names \['b'\]; the arms are a, c"):
        read(arms={"a": {}, "c": {}}, design=design)


@pytest.mark.parametrize("link", ["base", "start"])
def test_an_arm_that_leans_on_one_below_it_is_refused(link):
    with pytest.raises(ConfigError, match=r"arm 'a': 'b' must be an arm above it; above it: \[\]"):
        read(arms={"a": {link: "b"}, "b": {}}, design=NAMED[0])
