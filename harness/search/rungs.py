"""What may happen at a rung, and where the rungs stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

Verdict = Literal["run", "stop", "pause"]


class RungRule(Protocol):
    """Decides, each time a trial reaches a rung, what becomes of it.

    Its state is nothing but the scores recorded: the same reports in the same order rebuild it exactly.
    """

    #: whether trials wait at rungs
    pauses: bool
    #: epoch of the rung to the scores there, by trial in the order of their arrival
    rungs: dict[int, dict[str, float]]

    def report(self, trial: str, epoch: int, score: float, cost: float = 0.0) -> Verdict:
        """Record a score and, with two objectives, a cost; a repeated report changes nothing and answers the same."""

    def promotable(self, paused: Mapping[str, int], last: bool = False) -> str | None:
        """The paused trial that goes on next, none where none may.

        Args:
            paused: trial to the rung at which it waits.
            last: nothing else can happen any more; the best of each rung goes on even where there are few.
        """


class NoRungs:
    """Every trial runs to its end."""

    pauses = False

    def __init__(self) -> None:
        self.rungs: dict[int, dict[str, float]] = {}

    def report(self, trial: str, epoch: int, score: float, cost: float = 0.0) -> Verdict:
        """Always `run`."""
        return "run"

    def promotable(self, paused: Mapping[str, int], last: bool = False) -> str | None:
        """Never one: none pauses."""
        return None


def rung_epochs(grace: int, factor: int, max_epochs: int) -> list[int]:
    """Epochs of the rungs, rising: grace x factor^k below `max_epochs`."""
    epochs = []
    while grace < max_epochs:
        epochs.append(grace)
        grace *= factor
    return epochs
