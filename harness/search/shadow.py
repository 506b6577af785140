"""The study that a sampler sees in place of the stored one: in memory, and never long."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.config import Space
from harness.search.values import Picked, distributions, suggest_all

#: finished trials that a sampler sees: half the best, half the newest. TPE's time grows with them (9 ms with 300,
#: 110-275 ms with 10,000); its good group never holds more than 25 trials, so the best half loses it nothing
SEEN = 400
#: the constraint that a trial has enough memory, and its values: above 0 it is violated
_MEMORY, _KEPT, _VIOLATED = "memory", -1.0, 1.0


class Shadow:
    """An Optuna study in memory of finished trials and of those under way (which TPE keeps away from)."""

    def __init__(self, space: Space, make_sampler: Callable[[], BaseSampler]) -> None:
        self.space, self.make_sampler = space, make_sampler
        self.finished: list[FrozenTrial] = []
        #: whether a trial violated the constraint: from then on all of them say whether they do
        self.constrained = False
        self.under_way: dict[int, Picked] = {}
        self._build()

    def draw(self, number: int) -> Picked:
        """The sampler's next values, under way from now on."""
        if self._held > 2 * SEEN + len(self.under_way):
            self._build()
        trial = self.study.ask()
        picked = suggest_all(self.space, trial)
        self._note(number, trial.number, picked)
        return picked

    def start(self, number: int, picked: Picked) -> None:
        """A trial of other values is under way."""
        self.study.add_trial(self._frozen(picked, TrialState.RUNNING))
        self._note(number, self._held, picked)

    def finish(
        self, number: int, picked: Picked, score: float, state: TrialState = TrialState.COMPLETE, epoch: int = 0
    ) -> None:
        """A trial has a result: COMPLETE by its score, PRUNED at an epoch by its score there."""
        self.drop(number)
        self._finish(self._frozen(picked, state, score, epoch))

    def refuse(self, number: int, picked: Picked) -> None:
        """A trial violated the constraint `memory`; its score, which a Gaussian process asks for, is the worst so far.

        Optuna's samplers rank such trials behind all others (TPE), or model the constraint (GP).
        """
        self.drop(number)
        if not self.constrained:
            self.constrained = True
            for trial in self.finished:
                trial.set_constraint(_MEMORY, _KEPT)
            self._build()
        worst = min((trial.value for trial in self.finished), default=0.0)
        self._finish(self._frozen(picked, TrialState.COMPLETE, worst), _VIOLATED)

    def drop(self, number: int) -> None:
        """A trial is not under way any more."""
        if self.under_way.pop(number, None) is not None:
            self.study.tell(self._numbers.pop(number), state=TrialState.FAIL)

    def _build(self) -> None:
        """A new study of the trials that a sampler should see."""
        by_rank = sorted(self.finished, key=_rank, reverse=True)
        seen = {id(trial) for trial in by_rank[: SEEN // 2] + self.finished[-SEEN // 2 :]}
        # the sampler remembers which study it has seen: a new study needs a new one
        self.study = optuna.create_study(direction="maximize", sampler=self.make_sampler())
        self._held, self._numbers = 0, {}
        for trial in self.finished:
            if id(trial) in seen:
                self._add(trial)
        for number, picked in list(self.under_way.items()):
            self.start(number, picked)

    def _finish(self, trial: FrozenTrial, constraint: float = _KEPT) -> None:
        if self.constrained:
            trial.set_constraint(_MEMORY, constraint)
        self.finished.append(trial)
        self._add(trial)

    def _add(self, trial: FrozenTrial) -> None:
        self.study.add_trial(trial)
        self._held += 1

    def _note(self, number: int, shadow_number: int, picked: Picked) -> None:
        self._numbers[number] = shadow_number
        self.under_way[number] = picked
        self._held += 1

    def _frozen(self, picked: Picked, state: TrialState, score: float | None = None, epoch: int = 0) -> FrozenTrial:
        return create_trial(
            state=state,
            params=picked,
            distributions=distributions(self.space, picked),
            value=score,
            intermediate_values={epoch: score} if state is TrialState.PRUNED else None,
        )


def _rank(trial: FrozenTrial) -> tuple[bool, int, float]:
    """Optuna's own order: complete trials by score, then pruned ones by how far they came and their score there."""
    return trial.state is TrialState.COMPLETE, trial.last_step or 0, trial.value
