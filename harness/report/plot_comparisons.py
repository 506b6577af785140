"""How the arms of an ablation compare, as the plots of effects need it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.ablate.effects import Effect, Matrices, Scores, compare, compare_ladder
from harness.config.ablation import Arms, Ladder, design_arms
from harness.report.ablation_shared import miou_scores
from harness.report.plot_style import listed
from harness.report.records import AblationRecords

_INTERVALS = {
    "t over seeds": "Student's t over paired seeds",
    "bootstrap over images": "bootstrap over images (fewer than 3 seeds)",
    "none": "none (one seed)",
}


@dataclass(frozen=True)
class Comparisons:
    """The arms that the design compares, as far as they have complete trials, and how they compare."""

    records: AblationRecords

    @cached_property
    def scores(self) -> Scores:
        """Dataset mIoU of each trial; where a trial was scored by another rule, anew from its matrices."""
        own = miou_scores(self.records)
        return {arm: own[arm] for arm in self._compared() if arm in own}

    @cached_property
    def effects(self) -> list[Effect]:
        """Every arm that can be paired with the baseline against it; none where the baseline has no score."""
        baseline = self.records.baseline
        kept = {arm: by_seed for arm, by_seed in self.scores.items() if self.pairs(arm, baseline)}
        return compare(kept, baseline, np.random.default_rng(0), self._matrices(kept)) if len(kept) > 1 else []

    @cached_property
    def steps(self) -> list[Effect]:
        """Every rung against the one before that it can be paired with."""
        rungs: list[str] = []
        for arm in (rung for rung in self.records.rungs or () if rung in self.scores):
            if not rungs or self.pairs(arm, rungs[-1]):
                rungs.append(arm)
        kept = {arm: self.scores[arm] for arm in rungs}
        return compare_ladder(kept, rungs, np.random.default_rng(0), self._matrices(kept)) if len(kept) > 1 else []

    @property
    def is_ladder(self) -> bool:
        return self.records.rungs is not None

    def pairs(self, arm: str, against: str) -> bool:
        """Whether two arms have scores of the same seed on the same frames."""
        if not set(self.scores.get(arm, ())) & set(self.scores.get(against, ())):
            return False
        a, b = (self.records.arms[name].experiment for name in (arm, against))
        same_data = (a.data.root, a.data.synthetic) == (b.data.root, b.data.synthetic)
        return same_data and a.protocol.select_on_test == b.protocol.select_on_test

    def notes(self, effects: Sequence[Effect], arms: Sequence[str] | None = None) -> tuple[str, ...]:
        """What the intervals are, which arms score other classes, and which of `arms` could not be compared."""
        kinds = listed(list(dict.fromkeys(_INTERVALS[e.interval] for e in effects)))
        there = {name for e in effects for name in (e.arm, e.against)}
        gone = [arm for arm in arms or self._compared() if arm not in there]
        left_out = (f"Left out, no complete trial or no seed and frames in common: {listed(gone)}.",) if gone else ()
        return (f"95 % intervals: {kinds}.", *self._other_classes(there), *left_out)

    def _compared(self) -> tuple[str, ...]:
        design = self.records.settings.ablation.design
        return design_arms(design) if isinstance(design, Ladder | Arms) else tuple(self.records.arms)

    def _matrices(self, scores: Scores) -> Matrices | None:
        """The matrices of every score; none where one is missing."""
        found = self.records.matrices
        if not all(set(by_seed) <= set(found.get(arm, ())) for arm, by_seed in scores.items()):
            return None
        return {arm: {seed: found[arm][seed] for seed in by_seed} for arm, by_seed in scores.items()}

    def _other_classes(self, arms: Set[str]) -> tuple[str, ...]:
        first = next(arm for arm in self.scores if arm in arms)
        others = [a for a in self.scores if a in arms and self.records.classes(a) != self.records.classes(first)]
        if not others:
            return ()
        return (f"A mean over other classes than that of {first}, so partly another score: {listed(others)}.",)
