"""Which paused trial goes on, against a literal reading of the promotion rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.search import NoRungs, Promote

reports = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])),
    max_size=10,
    unique_by=lambda report: report[0],
)


def filled(scores: dict[int, dict[str, float]]) -> tuple[Promote, dict[str, int]]:
    """A rule that saw these scores at its rungs, and where each trial waits: at the highest that it reached."""
    rule, paused = Promote(1, 3, 27), {}
    for epoch, rung in scores.items():
        for trial, score in rung.items():
            assert rule.report(trial, epoch, score) == "pause"
            paused[trial] = epoch
    return rule, paused


def literal(scores: dict[int, dict[str, float]], paused: dict[str, int], last: bool) -> str | None:
    """Algorithm 2 of the paper: from the top, the best of the top third of a rung that is not promoted yet."""
    for epoch in sorted(scores, reverse=True):
        # a stable sort: of equal scores the one that came first
        ranked = sorted(scores[epoch], key=lambda trial: -scores[epoch][trial])
        count = len(ranked) // 3
        candidates = [t for t in ranked[: max(count, 1) if last else count] if paused.get(t) == epoch]
        if candidates:
            return candidates[0]
    return None


@given(reports, reports, st.booleans())
def test_the_promoted_trial_is_that_of_a_literal_reading(first, second, last):
    second = [report for report in second if report[0] in dict(first)]
    scores = {1: dict(first), 3: dict(second)}
    rule, paused = filled(scores)
    assert rule.promotable(paused, last) == literal(scores, paused, last)


def test_nobody_goes_on_before_three_have_come_and_then_only_the_best():
    rule, paused = filled({1: {"a": 0.1, "b": 0.9}})
    assert rule.promotable(paused) is None
    rule.report("c", 1, 0.5)
    assert rule.promotable(paused | {"c": 1}) == "b"
    # b is under way
    assert rule.promotable({"a": 1, "c": 1}) is None


def test_a_trial_that_met_a_strong_field_goes_on_when_a_weak_one_has_followed():
    rule, paused = filled({1: {"a": 0.9, "b": 0.8, "c": 0.1}})
    del paused["a"]
    assert rule.promotable(paused) is None
    for number in range(3):
        rule.report(f"weak{number}", 1, 0.0)
    assert rule.promotable(paused) == "b"


def test_a_higher_rung_goes_first():
    rule, paused = filled({1: {t: i / 10 for i, t in enumerate("abcdef")}, 3: {"d": 0.1, "e": 0.2, "f": 0.3}})
    paused |= {"c": 1}
    assert rule.promotable(paused) == "f"


def test_at_the_last_the_best_of_a_rung_goes_on_although_it_is_alone():
    rule, paused = filled({1: {"a": 0.1}})
    assert rule.promotable(paused) is None
    assert rule.promotable(paused, last=True) == "a"


def test_a_repeated_report_changes_nothing():
    rule, _ = filled({1: {"a": 0.1, "b": 0.9, "c": 0.5}})
    assert rule.report("b", 1, 0.0) == "pause"
    assert rule.rungs[1] == {"a": 0.1, "b": 0.9, "c": 0.5}
    assert rule.promotable({"a": 1, "b": 1, "c": 1}) == "b"


@pytest.mark.parametrize("epoch", [0, 2, 4, 26, 27])
def test_between_the_rungs_and_at_the_end_no_trial_pauses(epoch):
    assert Promote(1, 3, 27).report("a", epoch, 0.0) == "run"


def test_without_rungs_everything_runs():
    rule = NoRungs()
    assert {rule.report("a", epoch, 0.0) for epoch in range(30)} == {"run"}
    assert rule.promotable({"a": 1}, last=True) is None
