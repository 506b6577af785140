"""Racing: further seeds only for the arms that the seeds so far do not resolve."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.ablate.effects import compare, straddling
from harness.ablate.replicates import RUN, Replicates
from harness.config import Experiment, Trial, fingerprint
from harness.store import StudyFolder, TrialRow


class Racing(Replicates):
    """Replicates that go on, a seed at a time, for arms whose difference from the reference is not resolved.

    Every look at the scores spends some of the error rate (see `straddling`), so a raced verdict is worth less than
    one whose number of seeds was fixed beforehand.
    """

    def __init__(
        self,
        folder: StudyFolder,
        arms: Mapping[str, Experiment],
        seeds: Sequence[int],
        reference: str,
        most: int,
        score: Callable[[TrialRow], float],
    ) -> None:
        """Take the first `seeds` of all arms, the arm to compare with, and the largest number of seeds of an arm.

        `score` is what the tables compare: not the row's own score, which may follow a team's rule.
        """
        super().__init__(folder, arms, seeds)
        self.reference, self.most, self.score = reference, most, score

    def next_trial(self) -> Trial | None:
        """The next trial; once all have ended, one more seed of each arm that is not resolved."""
        trial = super().next_trial()
        # a race that goes on looks at the scores as often as before, for trials that have ended already
        while trial is None and not self.waiting and not self.running and self._one_more_seed():
            trial = super().next_trial()
        return trial

    def waits(self) -> bool:
        """Whether there may be trials once others have ended: their scores decide."""
        return bool(self.running)

    def _one_more_seed(self) -> bool:
        """Whether a trial was added."""
        scores, before = self._scores(), len(self.arm_of)
        if self.reference not in scores or len(scores) < 2:
            return False
        for arm in straddling(compare(scores, self.reference, np.random.default_rng(0))):
            seed = max(scores[arm]) + 1
            if seed < self.most:
                self.add(self._with_parents([self.reference, arm]), [seed])
        return len(self.arm_of) > before

    def _scores(self) -> dict[str, dict[int, float]]:
        """By arm and seed, of the trials that were asked for so far: what came later had no say in the look before."""
        scores: dict[str, dict[int, float]] = {}
        for row in self.record.ended.values():
            if row.trial in self.arm_of and row.outcome == "complete" and self._comparable(row.picked["arm"]):
                scores.setdefault(row.picked["arm"], {})[row.seed] = self.score(row)
        return {arm: scores[arm] for arm in self.arms if arm in scores}

    def _comparable(self, arm: str) -> bool:
        """Whether the arm is scored on the frames that its reference is scored on."""
        protocols = [self.arms[name].protocol for name in (arm, self.reference)]
        return protocols[0].select_on_test == protocols[1].select_on_test

    def _with_parents(self, arms: Sequence[str]) -> list[str]:
        """The arms after those whose weights they start from."""
        by_fingerprint = {fingerprint(experiment): arm for arm, experiment in self.arms.items()}
        parents = [
            by_fingerprint[start.removeprefix(RUN)]
            for arm in arms
            for start in self.arms[arm].start
            if start.startswith(RUN)
        ]
        return list(dict.fromkeys([*(self._with_parents(parents) if parents else []), *arms]))
