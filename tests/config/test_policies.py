"""The published policies as lists of steps."""

from __future__ import annotations

from typing import get_args

import pytest

from harness.config import POLICIES, Experiment, apply_overrides, policy_steps, validate_section
from harness.config.augmentation import NamedPolicy, PolicyName, StepList


def test_every_name_has_its_steps_and_every_list_its_name() -> None:
    assert set(POLICIES) == set(get_args(PolicyName))


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_by_name_is_the_policy_step_by_step(name: PolicyName) -> None:
    steps = [step.model_dump(mode="json") for step in POLICIES[name]]
    written_out = validate_section(StepList, {"kind": "steps", "steps": steps}, "here")
    assert policy_steps(NamedPolicy(policy=name)) == policy_steps(written_out) == POLICIES[name]


def test_the_default_experiment_can_take_every_policy() -> None:
    taken = [apply_overrides(Experiment(), {"augmentation.policy": name}).augmentation.policy for name in POLICIES]
    assert taken == list(POLICIES)


#: as the teams' scripts have them: probability of each step, in order
PROBABILITIES = {
    "none": [],
    "flip": [0.5],
    "ignitia_phase2": [0.5, 0.1, 0.3, 0.2, 0.3],
    "ignitia_phase3": [0.5, 0.1, 0.4, 0.2, 0.4, 0.15, 0.15],
    "ignitia_phase4": [0.5, 0.1, 0.5, 0.2, 0.4, 0.15, 0.15],
    "ignitia_phase5": [0.5, 0.1, 0.5, 0.2, 0.4, 0.3],
    "ignitia_phase6": [0.5, 0.1, 0.5, 0.2, 0.4, 0.3],
    "codecrunch_moderate": [1.0, 0.5, 0.6, 0.4, 0.2, 0.15],
    "desertmind_phase2": [0.5, 1.0, 1.0],
    "desertmind_phase3": [1.0, 0.5],
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_the_probabilities_are_the_published_ones(name: PolicyName) -> None:
    assert [getattr(step, "probability", 1.0) for step in POLICIES[name]] == PROBABILITIES[name]
