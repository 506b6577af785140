"""What a search's best trials score with fresh seeds, in words and as a table for the terminal."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.config import printable
from harness.search.confirmation import (
    LEAST_SEEDS,
    LEVEL,
    Confirmation,
    Retrained,
    is_confirmed,
)
from harness.stats import Estimate

_LEVEL = f"{100 * LEVEL:g} %"


def confirmation_summary(confirmation: Confirmation) -> RenderableType:
    """The trials as fresh seeds rank them, how far the search's first was too high, and where the winner lies."""
    lines = [
        Text(printable(sentence), "yellow" if is_warning else "") for sentence, is_warning in sentences(confirmation)
    ]
    folder = confirmation.folder
    done = [
        Text(f"winner  {folder.best}", "bold green"),
        Text(f"next    harness export {folder.path.parent} --to model"),
    ]
    return Group(Text(), _table(confirmation), Text(), *lines, *(done if is_confirmed(confirmation) else []))


def rows(confirmation: Confirmation) -> list[tuple[str, ...]]:
    """A line of text for each trial: `COLUMNS`."""
    return [_row(rank, trial) for rank, trial in enumerate(confirmation.trials, 1)]


COLUMNS = ("rank", "was", "trial", "search", "epochs", "fresh mean", f"{_LEVEL} interval", "seeds")


def title(confirmation: Confirmation) -> str:
    """How the trials are ranked."""
    seeds = confirmation.seeds
    asked = f"{len(seeds)} fresh seed{'s' * (len(seeds) != 1)} each ({_range(seeds)})"
    by = f"lower end of the mean's {_LEVEL} t interval" if _has_intervals(confirmation) else "mean alone"
    return f"the best trials of the search with {asked}, ranked by the {by}"


def sentences(confirmation: Confirmation) -> list[tuple[str, bool]]:
    """What the table means, a sentence each, and whether it is a warning."""
    found = [(curse(confirmation), False)] if confirmation.first.optimism else []
    if confirmation.optimism_of_all and len(confirmation.confirmed) > 1:
        found.append((_of_all(confirmation), False))
    if (change := winner_changed(confirmation)) is not None:
        found.append((change, False))
    return found + [(text, True) for text in cautions(confirmation)]


def curse(confirmation: Confirmation) -> str:
    """The winner's curse of this search, in one sentence: how far the score of its first trial was too high."""
    first, gap = confirmation.first, confirmation.first.optimism
    came = f"came first of {confirmation.searched} in the search with {first.row.score:.4f}"
    among = f"Winner's curse: trial {first.row.number} {came} and "
    epochs = f" after as many epochs ({first.row.epochs} of {confirmation.epochs})" if first.was_stopped else ""
    mean = f"{first.row.score - gap.point:.4f} on average with fresh seeds{epochs}"
    if gap.point <= 0:
        return f"{among}reaches {mean}: this time it was not too high{_within(gap)}."
    return f"{among}reaches {mean}: it was {gap.point:.4f} too high{_within(gap)}{_or_chance(gap)}."


def winner_changed(confirmation: Confirmation) -> str | None:
    """Whether fresh seeds put another trial first; none where nothing is known."""
    if not confirmation.confirmed:
        return None
    best, first = confirmation.confirmed[0], confirmation.first
    if best is first:
        return f"Trial {first.row.number} stays first."
    was = f"rank {best.search_rank} of the search"
    return f"Trial {best.row.number} ({was}) takes the place of trial {first.row.number}."


def cautions(confirmation: Confirmation) -> list[str]:
    """What keeps the table from being the last word."""
    found = []
    if not confirmation.finished:
        found.append(
            f"{confirmation.ended} of {confirmation.asked} trainings have ended: "
            f"`harness confirm {confirmation.folder.path.parent} --resume` goes on."
        )
    if len(confirmation.seeds) < LEAST_SEEDS:
        found.append(
            f"{len(confirmation.seeds)} of the {LEAST_SEEDS} seeds that an interval needs: of two values the t "
            "interval reaches 12.7 times as far from their mean as they do, and one value has none. The rank is that "
            "of the mean alone."
        )
    found += [_failed(trial) for trial in confirmation.trials if trial.failed]
    if confirmation.moved_on:
        found.append("The search has gone on since: some of its best trials were not trained again.")
    return found


def change(rank: int, trial: Retrained) -> str:
    """The rank in the search and how it moved: `3 ↑2`."""
    moved = trial.search_rank - rank
    return f"{trial.search_rank} {'↑' if moved > 0 else '↓'}{abs(moved)}" if moved else str(trial.search_rank)


def interval(estimate: Estimate | None) -> str:
    """An interval of scores, a dash where there is none."""
    if estimate is None or math.isnan(estimate.low):
        return "–"
    return f"{estimate.low:.4f} to {estimate.high:.4f}".replace("-", "−")


def _table(confirmation: Confirmation) -> Table:
    table = Table(title=title(confirmation), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=name != "seeds")
    for row, trial in zip(rows(confirmation), confirmation.trials, strict=True):
        is_best = bool(confirmation.confirmed) and trial is confirmation.confirmed[0]
        table.add_row(*row, style="green" if is_best else "")
    return table


def _row(rank: int, trial: Retrained) -> tuple[str, ...]:
    known = trial.mean is not None
    return (
        str(rank) if known else "–",
        change(rank, trial) if known else str(trial.search_rank),
        str(trial.row.number),
        f"{trial.row.score:.4f}",
        f"{trial.row.epochs}, stopped" if trial.was_stopped else str(trial.row.epochs),
        f"{trial.mean.point:.4f}" if known else "–",
        interval(trial.mean),
        f"{len(trial.scores)}" + (f", {len(trial.failed)} failed" if trial.failed else ""),
    )


def _of_all(confirmation: Confirmation) -> str:
    gap, count = confirmation.optimism_of_all, len(confirmation.confirmed)
    high = f"{gap.point:.4f} too high" if gap.point > 0 else f"{-gap.point:.4f} too low"
    return f"Over all {count} trained again the search's scores were on average {high}{_within(gap)}."


def _within(gap: Estimate) -> str:
    if math.isnan(gap.low):
        return ""
    return f" ({_LEVEL} interval {_signed(gap.low)} to {_signed(gap.high)})"


def _or_chance(gap: Estimate) -> str:
    if math.isnan(gap.low):
        return ", with too few seeds to say how sure that is"
    return ", which chance alone may give" if gap.low <= 0 else ""


def _failed(trial: Retrained) -> str:
    seeds = ", ".join(map(str, trial.failed))
    why = next(iter(trial.failed.values())).splitlines()[0]
    total = len(trial.failed) + len(trial.runs)
    return f"Trial {trial.row.number} failed with {len(trial.failed)} of {total} fresh seeds ({seeds}): {why}"


def _has_intervals(confirmation: Confirmation) -> bool:
    return any(trial.mean and not math.isnan(trial.mean.low) for trial in confirmation.trials)


def _range(seeds: tuple[int, ...]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
