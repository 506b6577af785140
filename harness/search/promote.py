"""Asynchronous successive halving, promotion type (Li et al., MLSys 2020, arXiv 1810.05934, algorithm 2)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from itertools import islice

from harness.search.rungs import Verdict, rung_epochs


class Promote:
    """Pauses every trial at every rung; one goes on as soon as it is among the best 1/factor of its rung.

    A good trial that met a strong early field waits instead of being lost, and no trial goes on because few had
    come before it. Rungs stand at grace, grace x factor, ... below `max_epochs`.
    """

    pauses = True

    def __init__(self, grace: int, factor: int, max_epochs: int) -> None:
        self.factor = factor
        self.rungs: dict[int, dict[str, float]] = {epoch: {} for epoch in rung_epochs(grace, factor, max_epochs)}
        # the best first; of equal scores the one that came first
        self._ranked: dict[int, list[tuple[float, int, str]]] = {epoch: [] for epoch in self.rungs}

    def report(self, trial: str, epoch: int, score: float, cost: float = 0.0) -> Verdict:
        """Record a score; `pause` at every rung."""
        if epoch not in self.rungs:
            return "run"
        if trial not in self.rungs[epoch]:
            insort(self._ranked[epoch], (-score, len(self.rungs[epoch]), trial))
            self.rungs[epoch][trial] = score
        return "pause"

    def promotable(self, paused: Mapping[str, int], last: bool = False) -> str | None:
        """The best paused trial of the highest rung that has one among its best 1/factor."""
        for epoch in reversed(self.rungs):
            ranked = self._ranked[epoch]
            go_on = max(len(ranked) // self.factor, int(last))
            for _, _, trial in islice(ranked, go_on):
                if paused.get(trial) == epoch:
                    return trial
        return None
