"""A model per rung: Parzen estimators over the scores at the highest rung that has enough of them.

As in BOHB (Falkner et al., ICML 2018, arXiv 1807.01774). A model over all trials compares a score after one epoch
with one after thirty; here every score that it sees has had the same training.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import Space
from harness.search.pareto import pareto_order
from harness.search.parzen import MOST_OTHERS, Point, encode, parzen_draw
from harness.search.values import Outcome, Picked, draws_of, random_pick

#: results that a rung needs before it is modelled
MIN_RESULTS = 12
#: results that are ranked by two objectives: the newest, which a model has drawn near the best before them. Ranking
#: takes longer with every one, and `next_trial` should not
MOST_RANKED = 2000
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
        #: the second objective by trial, where there are two
        self.cost_of: dict[int, float] = {}
        #: trials for which there was too little memory
        self.too_large: dict[int, Point] = {}

    def draw(self, number: int) -> Picked:
        """The model's next values, or random ones."""
        rng = draws_of(self.seed, number)
        scores = next((r for r in reversed(self.results.values()) if len(r) >= MIN_RESULTS), None)
        if scores is None or rng.random() < RANDOM_SHARE:
            picked = random_pick(self.space, rng)
        else:
            # by number, not by arrival: a resumed study hears of its trials in that order
            results = [(score, self.points[trial]) for trial, score in self._ranked(scores)]
            # as bad as the worst result, at every rung
            bad = [self.too_large[trial] for trial in sorted(self.too_large)[-MOST_OTHERS:]]
            known = max(len(rung) for rung in self.results.values())
            picked = parzen_draw(self.space, results, [*self.under_way.values(), *bad], rng, known)
        self.started(number, picked)
        return picked

    def started(self, number: int, picked: Picked) -> None:
        """Its values are kept away from until it has a result."""
        self.points[number] = self.under_way[number] = encode(self.space, picked)

    def reported(self, number: int, epoch: int, score: float) -> None:
        """A score at a rung is a result there."""
        if epoch in self.results and epoch != self.last:
            self._add(number, epoch, score)

    def costs(self, number: int, cost: float) -> None:
        """With two objectives, what is good is so by both."""
        self.cost_of[number] = cost

    def ended(self, number: int, outcome: Outcome, score: float | None) -> None:
        """The best score of a trial that ran to its end, be it by its own patience, is a result at the last epoch."""
        if outcome == "complete" and score is not None:
            self._add(number, self.last, score)
        self.under_way.pop(number, None)

    def infeasible(self, number: int) -> None:
        """Its values are kept away from for good, as those of the worst results are."""
        self.too_large[number] = self.points[number]
        for scores in self.results.values():
            scores.pop(number, None)
        self.under_way.pop(number, None)

    def _ranked(self, scores: dict[int, float]) -> list[tuple[int, float]]:
        """Trials in their order with their scores; with two objectives, with how many they come before."""
        if not self.cost_of:
            return [(trial, scores[trial]) for trial in sorted(scores)]
        trials = sorted(scores)[-MOST_RANKED:]
        order = pareto_order([(scores[trial], self.cost_of[trial]) for trial in trials])
        return sorted((trials[place], float(len(order) - rank)) for rank, place in enumerate(order))

    def _add(self, number: int, epoch: int, score: float) -> None:
        self.results[epoch][number] = score
        self.under_way.pop(number, None)
