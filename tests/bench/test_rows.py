from __future__ import annotations

import pytest

from harness.bench.rows import Goal, Measured, Row, milliseconds


def row(value: Measured, goal: Goal | None) -> Row:
    return Row("what", "1 ms", "2 ms", value, "x", 3, goal)


@pytest.mark.parametrize(
    ("goal", "value", "reached", "missed"),
    [
        (Goal(10, at_least=True), 10.0, True, 0.0),
        (Goal(10, at_least=True), 8.0, False, 0.2),
        (Goal(0.1, at_least=False), 0.1, True, 0.0),
        (Goal(1.1, at_least=False), 1.32, False, 0.2),
    ],
)
def test_a_goal_says_whether_and_by_what_share_it_is_missed(goal, value, reached, missed) -> None:
    assert goal.reached(value) is reached
    assert goal.missed_by(value) == pytest.approx(missed)


def test_an_answer_whose_interval_spans_the_goal_says_so() -> None:
    goal = Goal(5, at_least=True)
    assert row(Measured(6, 5.5, 7, 0.95), goal).reached == "yes"
    assert row(Measured(6, 4, 7, 0.95), goal).reached == "yes (interval spans the goal)"
    assert row(Measured(4, 3, 4.5, 0.95), goal).reached == "no"
    assert row(Measured(4), goal).reached == "no"


def test_a_row_without_a_goal_has_no_answer() -> None:
    assert row(Measured(4), None).reached == "–"


def test_times_below_a_second_are_milliseconds() -> None:
    assert milliseconds(0.01234, "a sample") == "12.3 ms a sample"
    assert milliseconds(2.5, "an epoch") == "2.5 s an epoch"
