"""One line of a benchmark: what was measured on both sides, and the goal that it is held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A number with its interval; `level` is the interval's confidence, 0-1, and nan ends are unknown ends."""

    point: float
    low: float = float("nan")
    high: float = float("nan")
    level: float = float("nan")


@dataclass(frozen=True)
class Goal:
    """A limit that a number has to reach: from above (`at_least`) or from below."""

    limit: float
    at_least: bool

    def reached(self, value: float) -> bool:
        """Whether the number is on the right side of the limit."""
        return value >= self.limit if self.at_least else value <= self.limit

    def missed_by(self, value: float) -> float:
        """How far the number is from the limit, as a share of the limit; 0 where it is reached."""
        return 0.0 if self.reached(value) else abs(value - self.limit) / self.limit


@dataclass(frozen=True)
class Row:
    """A line of the table.

    `ours` and `theirs` say what each side took, in words with units. `value` is the number that is judged, in
    `unit` ("x": times faster, or times as long where the goal is a ceiling). `pairs` counts the repetitions
    behind it. `note` says under what conditions; `why` is printed only where the goal is missed.
    """

    what: str
    ours: str
    theirs: str
    value: Measured
    unit: str
    pairs: int
    goal: Goal | None = None
    note: str = ""
    why: str = ""

    @property
    def reached(self) -> str:
        """`yes`, `no`, or `-` without a goal; says so where the interval holds both answers."""
        if self.goal is None:
            return "–"
        answer = "yes" if self.goal.reached(self.value.point) else "no"
        ends = {self.goal.reached(end) for end in (self.value.low, self.value.high) if end == end}
        return f"{answer} (interval spans the goal)" if len(ends) == 2 else answer


def milliseconds(seconds: float, per: str) -> str:
    """Seconds in words: `1.23 ms a sample`."""
    return f"{seconds * 1e3:.3g} ms {per}" if seconds < 1 else f"{seconds:.3g} s {per}"
