"""Our scores beside the published ones are taken under the system's own rule."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from harness.report.reproduced import reproduced_scores

#: two images of two classes; columns: class 0, class 1, none
FIRST = np.array([[[3, 1, 0], [0, 0, 0]], [[2, 0, 0], [1, 1, 0]]])
SECOND = np.array([[[4, 0, 0], [0, 0, 0]], [[2, 0, 0], [0, 2, 0]]])


def records(**arms: dict[int, np.ndarray]) -> SimpleNamespace:
    return SimpleNamespace(matrices=arms, test_matrices=arms, classes=lambda _: ("Sky", "Rocks"))


def test_each_system_is_scored_by_its_own_rule_and_seeds_are_averaged() -> None:
    ours = records(phase1={0: FIRST, 1: SECOND})
    # pooled over the batch of two: Sky 5/7, Rocks 1/3; the second seed is perfect
    batch = ((5 / 7 + 1 / 3) / 2 + 1) / 2
    assert reproduced_scores(ours, "ignitia", {("Ignitia", "1")}) == {("Ignitia", "1"): pytest.approx(batch)}
    # image by image: (3/4 + 0)/2 and (2/3 + 1/2)/2
    image = ((3 / 8 + 7 / 12) / 2 + 1) / 2
    assert reproduced_scores(ours, "desertmind", {("DesertMind", "1")}) == {("DesertMind", "1"): pytest.approx(image)}


def test_a_phase_without_a_published_score_or_without_a_run_is_left_out() -> None:
    known = {("CodeCrunch", "5 val"), ("CodeCrunch", "5+TTA test"), ("CodeCrunch", "4 test")}
    ours = records(phase5={0: SECOND}, phase5_tta={0: SECOND})
    assert reproduced_scores(ours, "codecrunch", known) == {
        ("CodeCrunch", "5 val"): 1.0,
        ("CodeCrunch", "5+TTA test"): 1.0,
    }
