"""What may be said of the first of a ranking, in which trials that ran to their end stand before all others."""

from __future__ import annotations

from collections.abc import Sequence

from harness.store import TrialRow


def among_which(ranking: Sequence[TrialRow]) -> str:
    """`highest of 12 scores`; where a trial that was stopped has a higher one, `best of the 5 scores of trials ...`."""
    if stopped_above(ranking) is None:
        return f"highest of {len(ranking)} scores"
    whole = sum(row.outcome == "complete" for row in ranking)
    if whole == 1:
        return "only score of a trial trained to its end"
    return f"best of the {whole} scores of trials trained to their end"


def stopped_above(ranking: Sequence[TrialRow]) -> TrialRow | None:
    """The trial of the highest score, where that is not the first: it was stopped early."""
    highest = max(ranking, key=lambda row: row.score)
    return highest if highest.score > ranking[0].score else None


def named_above(ranking: Sequence[TrialRow]) -> str:
    """A sentence, after a space, that names the stopped trial with a higher score; empty where there is none."""
    row = stopped_above(ranking)
    if row is None:
        return ""
    epochs = "1 epoch" if row.epochs == 1 else f"{row.epochs} epochs"
    return f" Trial {row.number} had {row.score:.4f}, and was stopped after {epochs}: it stands behind them."
