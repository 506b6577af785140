"""A path: the factors taken one by one, each time the one that scores highest on top of those taken before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from harness.ablate.designs import combination_name, resolve_arms
from harness.ablate.replicates import Replicates, chain
from harness.config import Ablation, Experiment, Trial
from harness.config.ablation import with_steps
from harness.store import StudyFolder


class GreedyPath(Replicates):
    """Replicates in rounds: each tries every factor left on top of those taken, and takes the best.

    The score of a factor is the mean over seeds of its arm; of equal ones the first in the file is taken. An arm
    with a trial that failed is never taken; its factor is tried again in the next round. The highest of many is
    too high by that choice, so that the gain of a step is worth less than one between arms named beforehand.
    """

    def __init__(
        self,
        folder: StudyFolder,
        ablation: Ablation,
        scale: str,
        seeds: Sequence[int],
        on_step: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Go on from the steps that the ablation's design has; `on_step` is called with all steps after each."""
        self.ablation, self.scale, self.seeds, self.on_step = ablation, scale, seeds, on_step
        super().__init__(folder, _experiments(ablation, scale), seeds)

    @property
    def steps(self) -> tuple[str, ...]:
        """The factors taken so far, in order."""
        return self.ablation.design.steps

    def next_trial(self) -> Trial | None:
        """The next trial; once a round has ended, its best factor is taken and the next round begins."""
        trial = super().next_trial()
        if trial is None and not self.waiting and not self.running and (factor := self._best_factor()):
            self._take(factor)
            trial = super().next_trial()
        return trial

    def waits(self) -> bool:
        """Whether there may be trials once others have ended: their scores decide."""
        return bool(self.running)

    def _best_factor(self) -> str | None:
        means = {factor: self._mean_score(factor) for factor in self.ablation.factors if factor not in self.steps}
        known = {factor: mean for factor, mean in means.items() if math.isfinite(mean)}
        return max(known, key=known.__getitem__, default=None)

    def _mean_score(self, factor: str) -> float:
        """Mean over seeds of the steps so far and a factor; nan where a trial did not complete."""
        arm = combination_name(frozenset([*self.steps, factor]), list(self.ablation.factors))
        rows = [self.record.ended.get(Trial(self.arms[arm], seed).id) for seed in self.seeds]
        scores = [row.score for row in rows if row is not None and row.outcome == "complete" and row.score is not None]
        return float(np.mean(scores)) if len(scores) == len(rows) else math.nan

    def _take(self, factor: str) -> None:
        self.ablation = with_steps(self.ablation, (*self.steps, factor))
        self.arms = chain(_experiments(self.ablation, self.scale))
        self.on_step(self.steps)
        self.add(self.arms, self.seeds)


def _experiments(ablation: Ablation, scale: str) -> dict[str, Experiment]:
    return {name: arm.experiment for name, arm in resolve_arms(ablation, scale).items()}
