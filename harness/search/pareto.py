"""Two objectives, score and cost: who goes on at a rung, and what the model calls good.

Ranks are those of NSGA-II (Deb et al., 2002): fronts of trials that no other beats, the fronts before left out; within
a front, the lonelier first. At rungs as in MO-ASHA (Schmucker et al., 2021, arXiv 2106.12639).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from harness.search.rungs import Verdict, rung_epochs
from harness.store.front import Point, fronts_of


def crowding(points: Sequence[Point], fronts: Sequence[int]) -> np.ndarray:
    """How far apart the neighbours of each point (N) are in its front, as shares of it; infinite at its ends."""
    at, front = np.array(points, dtype=float).reshape(-1, 2), np.array(fronts)
    # along a front the score falls as the cost does, so one order serves both
    order = np.lexsort((at[:, 1], -at[:, 0], front))
    at, front = at[order], front[order]
    first, last = np.searchsorted(front, front), np.searchsorted(front, front, side="right") - 1
    spans = np.abs(at[first] - at[last])
    places = np.arange(len(at))
    gaps = np.abs(at[np.minimum(places + 1, last)] - at[np.maximum(places - 1, first)])
    distances = (gaps / np.where(spans > 0, spans, 1.0)).sum(1)
    distances[(places == first) | (places == last)] = np.inf
    found = np.empty(len(at))
    found[order] = distances
    return found


def pareto_order(points: Sequence[Point]) -> list[int]:
    """Places of points, the best first: by front, in a front the lonelier first, of equal ones the earlier."""
    fronts = fronts_of(points)
    return np.lexsort((-crowding(points, fronts), fronts)).tolist()


class ParetoRungs:
    """Rungs where the best 1/factor by two objectives go on: the others stop for good, or, `pauses`, wait."""

    def __init__(self, grace: int, factor: int, max_epochs: int, pauses: bool) -> None:
        self.factor, self.pauses = factor, pauses
        self.rungs: dict[int, dict[str, float]] = {epoch: {} for epoch in rung_epochs(grace, factor, max_epochs)}
        self._points: dict[int, list[Point]] = {epoch: [] for epoch in self.rungs}
        self._ranked: dict[int, list[str]] = {}
        self._verdicts: dict[tuple[str, int], Verdict] = {}

    def report(self, trial: str, epoch: int, score: float, cost: float = 0.0) -> Verdict:
        """Record score and cost; a repeated report changes nothing and answers the same."""
        if epoch not in self.rungs:
            return "run"
        if trial not in self.rungs[epoch]:
            self.rungs[epoch][trial] = score
            self._points[epoch].append((score, cost))
            self._ranked.pop(epoch, None)
            self._verdicts[trial, epoch] = "pause" if self.pauses else self._judge(trial, epoch)
        return self._verdicts[trial, epoch]

    def promotable(self, paused: Mapping[str, int], last: bool = False) -> str | None:
        """The best paused trial of the highest rung that has one among its best 1/factor."""
        for epoch in reversed(self.rungs if self.pauses else {}):
            go_on = max(len(self.rungs[epoch]) // self.factor, int(last))
            for trial in islice(self._order(epoch), go_on):
                if paused.get(trial) == epoch:
                    return trial
        return None

    def _judge(self, trial: str, epoch: int) -> Verdict:
        go_on = max(1, len(self.rungs[epoch]) // self.factor)
        return "run" if trial in self._order(epoch)[:go_on] else "stop"

    def _order(self, epoch: int) -> list[str]:
        """The trials of a rung, the best first."""
        if epoch not in self._ranked:
            trials = list(self.rungs[epoch])
            self._ranked[epoch] = [trials[i] for i in pareto_order(self._points[epoch])]
        return self._ranked[epoch]
