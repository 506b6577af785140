"""Rungs and decisions of successive halving, against a literal reading of the rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.search import Asha, rung_epochs

Reports = list[tuple[str, int, float]]

reports = st.lists(
    st.tuples(
        st.sampled_from("abcdefghij"), st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.25, 0.25000001, 0.5, 0.9, 1.0])
    ),
    max_size=60,
)


def literal_decisions(reports: Reports, rungs: tuple[int, ...], factor: int) -> list[str]:
    """Sort the scores at the rung so far; the trial goes on if it reaches the one at rank max(1, n // factor)."""
    seen: dict[tuple[str, int], str] = {}
    scores: dict[int, list[float]] = {rung: [] for rung in rungs}
    answers = []
    for trial, epoch, score in reports:
        if epoch not in rungs:
            answers.append("run")
            continue
        if (trial, epoch) not in seen:
            scores[epoch].append(score)
            ranked = sorted(scores[epoch], reverse=True)
            cutoff = ranked[max(1, len(ranked) // factor) - 1]
            seen[trial, epoch] = "run" if score >= cutoff else "stop"
        answers.append(seen[trial, epoch])
    return answers


@pytest.mark.parametrize(
    ("grace", "factor", "max_epochs", "rungs"),
    [
        (1, 3, 9, [1, 3]),
        (1, 3, 10, [1, 3, 9]),
        (1, 2, 16, [1, 2, 4, 8]),
        (4, 4, 100, [4, 16, 64]),
        (9, 3, 9, []),
        (5, 2, 1, []),
    ],
)
def test_rungs_stand_at_grace_times_powers_of_the_factor_below_the_last_epoch(grace, factor, max_epochs, rungs):
    assert rung_epochs(grace, factor, max_epochs) == rungs


@given(reports, st.integers(2, 4))
def test_decisions_equal_a_literal_reading_of_the_rule_in_any_order_of_reports(reports: Reports, factor: int):
    asha = Asha(1, factor, 9)
    decisions = [asha.report(*report) for report in reports]
    assert decisions == literal_decisions(reports, tuple(asha.rungs), factor)


@given(reports)
def test_replaying_the_same_reports_gives_the_same_rungs_and_decisions(reports: Reports):
    first, second = Asha(1, 3, 9), Asha(1, 3, 9)
    assert [first.report(*r) for r in reports] == [second.report(*r) for r in reports]
    assert first.rungs == second.rungs


@given(reports)
def test_a_repeated_report_changes_nothing_and_answers_as_the_first_time(reports: Reports):
    asha = Asha(1, 3, 9)
    first = {}
    for trial, epoch, score in reports:
        first.setdefault((trial, epoch), asha.report(trial, epoch, score))
    rungs = {epoch: dict(rung) for epoch, rung in asha.rungs.items()}
    assert {(t, e): asha.report(t, e, 0.77) for t, e in first} == first
    assert asha.rungs == rungs


def test_a_trial_that_passed_a_rung_passes_it_again_although_better_ones_came_since():
    asha = Asha(1, 3, 9)
    assert asha.report("first", 1, 0.1) == "run"
    for number in range(6):
        asha.report(f"better{number}", 1, 0.5 + number / 10)
    assert asha.report("first", 1, 0.1) == "run"


def test_the_worst_score_off_the_rungs_goes_on():
    asha = Asha(1, 3, 9)
    for number in range(9):
        asha.report(f"t{number}", 1, 0.9)
    assert {asha.report("worst", epoch, 0.0) for epoch in (2, 4, 5, 6, 7, 8, 9)} == {"run"}
    assert asha.report("worst", 1, 0.0) == "stop"


def test_three_trials_with_factor_three_keep_only_the_best():
    asha = Asha(1, 3, 9)
    assert [asha.report(*r) for r in [("a", 1, 0.5), ("b", 1, 0.4), ("c", 1, 0.6), ("d", 1, 0.55)]] == [
        "run", "stop", "run", "stop"
    ]  # fmt: skip


def test_nothing_that_stopped_is_ever_promoted():
    asha = Asha(1, 3, 9)
    for number in range(9):
        asha.report(f"t{number}", 1, number / 10)
    assert asha.promotable({"t8": 1}, last=True) is None
