"""Two objectives, score and cost: the trials of a study that no other beats."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from harness.config.space import Objective
from harness.store.record import Record
from harness.store.rows import EpochRow, TrialRow

#: score, 0-1, the higher the better, and cost, the lower the better
Point = tuple[float, float]


def fronts_of(points: Sequence[Point]) -> list[int]:
    """The front of each point, from 0: those that no other beats; 1: those that only points of front 0 beat; ..."""
    at = np.array(points, dtype=float).reshape(-1, 2)
    order = np.lexsort((at[:, 1], -at[:, 0]))
    fronts, lowest, previous, front = [], [], None, 0
    for point in at[order].tolist():
        # who came before has at least this score, so the cheapest of a front decides whether it beats this one
        if point != previous:
            previous, cost = point, point[1]
            front = bisect_right(lowest, cost)
            if front == len(lowest):
                lowest.append(cost)
            else:
                lowest[front] = cost
        fronts.append(front)
    found = np.empty(len(at), dtype=int)
    found[order] = fronts
    return found.tolist()


class Costs:
    """The cost of each trial so far, from its epochs in their order."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._known: dict[str, tuple[int, float, int]] = {}

    def add(self, row: EpochRow) -> float:
        """A trial's cost with this epoch; one that it knows changes nothing."""
        if self.objective == "parameters":
            return float(row.parameters)
        epoch, seconds, images = self._known.get(row.trial, (-1, 0.0, 0))
        if row.epoch > epoch:
            seconds, images = seconds + row.train_seconds, images + row.images
            self._known[row.trial] = (row.epoch, seconds, images)
        return 1000 * seconds / images if images else 0.0


def cost_of(objective: Objective, rows: Sequence[EpochRow]) -> float:
    """The cost of a trial by all its epochs: parameters, or milliseconds of training per image seen."""
    costs = Costs(objective)
    return [costs.add(row) for row in rows][-1]


def front_of(record: Record, objective: Objective) -> list[tuple[TrialRow, float]]:
    """Ended trials that no other beats, with their costs, the highest score first.

    Of trials that ran to their end, where there are any: as in the ranking by score alone they come before others.
    """
    ranking = record.ranking()
    rows = [row for row in ranking if row.outcome == "complete"] or ranking
    points = [(row.score, cost_of(objective, record.epochs[row.trial])) for row in rows]
    return [(row, cost) for row, (_, cost), front in zip(rows, points, fronts_of(points), strict=True) if front == 0]


def ranking_of(record: Record, objective: Objective | None) -> list[TrialRow]:
    """The trials that `front_of` gives, in its order; without a second objective the ranking by score."""
    return record.ranking() if objective is None else [row for row, _ in front_of(record, objective)]
