"""Asynchronous successive halving, stopping type (Li et al., MLSys 2020, arXiv 1810.05934)."""

from __future__ import annotations


class Asha:
    """Decides, each time a trial reaches a rung, whether it goes on.

    A trial goes on while it is among the best 1/factor of those that reached the rung so far (the best one
    always is). Rungs stand at grace, grace x factor, ... below `max_epochs`. The state is nothing but the
    scores recorded, so feeding the same reports in the same order rebuilds it exactly.
    """

    def __init__(self, grace: int, factor: int, max_epochs: int) -> None:
        self.factor = factor
        self.rungs: dict[int, dict[str, float]] = {epoch: {} for epoch in rung_epochs(grace, factor, max_epochs)}

    def report(self, trial: str, epoch: int, score: float) -> bool:
        """Record a score; True if the trial goes on. A repeated report changes nothing and answers the same."""
        if epoch not in self.rungs:
            return True
        rung = self.rungs[epoch]
        rung.setdefault(trial, score)
        # a repeated report (a resumed trial) must not be judged by those that came after it
        so_far = list(rung.values())[: list(rung).index(trial) + 1]
        better = sum(other > rung[trial] for other in so_far)
        return better < max(1, len(so_far) // self.factor)


def rung_epochs(grace: int, factor: int, max_epochs: int) -> list[int]:
    """Epochs of the rungs, rising: grace x factor^k below `max_epochs`."""
    epochs = []
    while grace < max_epochs:
        epochs.append(grace)
        grace *= factor
    return epochs
