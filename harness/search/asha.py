"""Asynchronous successive halving, stopping type (Li et al., MLSys 2020, arXiv 1810.05934)."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping

from harness.search.rungs import Verdict, rung_epochs


class Asha:
    """Stops a trial at a rung for good unless it is among the best 1/factor of those that came there so far.

    The best one always goes on. Rungs stand at grace, grace x factor, ... below `max_epochs`.
    """

    pauses = False

    def __init__(self, grace: int, factor: int, max_epochs: int) -> None:
        self.factor = factor
        self.rungs: dict[int, dict[str, float]] = {epoch: {} for epoch in rung_epochs(grace, factor, max_epochs)}
        self._ascending: dict[int, list[float]] = {epoch: [] for epoch in self.rungs}
        self._verdicts: dict[tuple[str, int], Verdict] = {}

    def report(self, trial: str, epoch: int, score: float, cost: float = 0.0) -> Verdict:
        """Record a score. A repeated report (a resumed trial) is not judged by those that came after it."""
        if epoch not in self.rungs:
            return "run"
        if trial not in self.rungs[epoch]:
            self.rungs[epoch][trial] = score
            insort(self._ascending[epoch], score)
            self._verdicts[trial, epoch] = self._judge(self._ascending[epoch], score)
        return self._verdicts[trial, epoch]

    def promotable(self, paused: Mapping[str, int], last: bool = False) -> str | None:
        """Never one: what stops, stops for good."""
        return None

    def _judge(self, ascending: list[float], score: float) -> Verdict:
        better = len(ascending) - bisect_right(ascending, score)
        return "run" if better < max(1, len(ascending) // self.factor) else "stop"
