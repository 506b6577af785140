"""A model per rung: Parzen estimators over the scores at the highest rung that has enough of them.

As in BOHB (Falkner et al., ICML 2018, arXiv 1807.01774). A model over all trials compares a score after one epoch
with one after thirty; here every score that it sees has had the same training.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import Space
from harness.search.parzen import Point, encode, parzen_draw
from harness.search.values import Outcome, Picked, draws_of, random_pick

#: results that a rung needs before it is modelled
MIN_RESULTS = 12
#: share of the draws that no model makes: what it cannot see yet (slow starters) must get a chance
RANDOM_SHARE = 0.25


class ModelPerRung:
    """Parzen estimators over the highest rung (or the last epoch) with enough results, and a share of random draws."""

    def __init__(self, space: Space, rungs: Sequence[int], seed: int) -> None:
        self.space, self.last = space, space.experiment.training.epochs
        self.seed = seed
        #: by rung, the scores by trial
        self.results: dict[int, dict[int, float]] = {epoch: {} for epoch in (*rungs, self.last)}
        self.points: dict[int, Point] = {}
        #: trials without a result at any rung
        self.under_way: dict[int, Point] = {}

    def draw(self, number: int) -> Picked:
        """The model's next values, or random ones."""
        rng = draws_of(self.seed, number)
        scores = next((r for r in reversed(self.results.values()) if len(r) >= MIN_RESULTS), None)
        if scores is None or rng.random() < RANDOM_SHARE:
            picked = random_pick(self.space, rng)
        else:
            # by number, not by arrival: a resumed study hears of its trials in that order
            results = [(scores[trial], self.points[trial]) for trial in sorted(scores)]
            picked = parzen_draw(self.space, results, self.under_way.values(), rng)
        self.started(number, picked)
        return picked

    def started(self, number: int, picked: Picked) -> None:
        """Its values are kept away from until it has a result."""
        self.points[number] = self.under_way[number] = encode(self.space, picked)

    def reported(self, number: int, epoch: int, score: float) -> None:
        """A score at a rung is a result there."""
        if epoch in self.results and epoch != self.last:
            self._add(number, epoch, score)

    def ended(self, number: int, outcome: Outcome, score: float | None) -> None:
        """The best score of a trial that ran to its end, be it by its own patience, is a result at the last epoch."""
        if outcome == "complete" and score is not None:
            self._add(number, self.last, score)
        self.under_way.pop(number, None)

    def _add(self, number: int, epoch: int, score: float) -> None:
        self.results[epoch][number] = score
        self.under_way.pop(number, None)
