"""How a Snapshot is drawn on a terminal, of any width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.config import printable, visible
from harness.run.snapshot import RunningTrial, Snapshot
from harness.store import TrialRow

_BARS = "▁▂▃▄▅▆▇█"
_STYLE = {"complete": "green", "stopped": "yellow", "infeasible": "magenta", "failed": "bold red"}
#: columns: of a sparkline, and from where on there is room for ids and for a wider one
_SPARK, _WIDE, _WIDE_SPARK = 10, 110, 24
#: lines of running trials at the least
_FEWEST = 3


def frame(snapshot: Snapshot, width: int, height: int, note: str = "") -> RenderableType:
    """A study: how far it is, its best, its rungs, what runs, and what went wrong last."""
    head = [_line(_headline(snapshot)), _bar(snapshot, width), _line(_counts(snapshot))]
    parts = [*head, *_best(snapshot), *_rungs(snapshot), *_gpus(snapshot), *_failure(snapshot), *_note(note)]
    # a table has its heading and its rows, a line above the running trials, and the cursor's own below
    room = max(_FEWEST, height - len(parts) - len(snapshot.rungs) - 3)
    return Group(*parts, *_running(snapshot, width, room))


def ended_line(row: TrialRow, scores: list[float]) -> Text:
    """The line of an ended trial, which stays on the screen."""
    line = Text(f"{row.number:>4}  ")
    line.append(f"{row.outcome:<9} " if len(row.outcome) > 9 else f"{row.outcome:<9}", _STYLE[row.outcome])
    line.append(f"{row.score:.4f}  " if row.score is not None else "   –    ")
    line.append(f"{row.epochs:>3} epochs  {sparkline(scores, _SPARK):<{_SPARK}}  ")
    return line.append(visible(row.error) if row.error else short(row.picked), "red" if row.error else "dim")


def sparkline(values: list[float] | tuple[float, ...], width: int | None = None) -> str:
    """Values as bars from the lowest to the highest of them; of more than `width`, as many evenly spread ones."""
    if not values:
        return ""
    low, span = min(values), (max(values) - min(values)) or 1.0
    shown = values if width is None or len(values) <= width else _spread(values, width)
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1))] for value in shown)


def short(picked: Mapping[str, Any]) -> str:
    """Picked values in one line."""
    return printable("  ".join(f"{name}={_short(value)}" for name, value in picked.items()))


def about(seconds: float) -> str:
    """A duration as one says it: `about 12 min`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    if minutes < 100:
        return f"about {minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 10:
        # to the nearest ten minutes: nobody knows better
        hours, tens = divmod(round(minutes / 10), 6)
        return f"about {hours} h" + (f" {tens}0 min" if tens else "")
    hours = round(minutes / 60)
    return f"about {hours} h" if hours < 48 else f"about {round(hours / 24)} days"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _headline(snapshot: Snapshot) -> Text:
    plan = snapshot.plan
    line = Text(printable(plan.name), "bold")
    line.append(f"  {plan.kind if plan.search is None else f'search by {plan.search.strategy}'}", "dim")
    if snapshot.status != "running":
        return line.append(f"  {snapshot.status}", "green" if snapshot.status == "finished" else "yellow")
    if snapshot.seconds is not None:
        line.append(f"  {clock(snapshot.seconds)}", "dim")
    if snapshot.left is not None:
        line.append(f"  {'at most ' if plan.at_most else ''}{about(snapshot.left)} left")
    return line


def _bar(snapshot: Snapshot, width: int) -> Text:
    """Ended trials by outcome, of all that are planned."""
    total = max(1, snapshot.ended, snapshot.plan.planned or snapshot.ended + len(snapshot.running))
    line, filled, ended = Text(), 0, 0
    for outcome in _STYLE:
        ended += getattr(snapshot, outcome)
        upto = round(min(width, _WIDE) * ended / total)
        line.append("━" * (upto - filled), _STYLE[outcome])
        filled = upto
    return line.append("━" * (min(width, _WIDE) - filled), "grey30")


def _counts(snapshot: Snapshot) -> Text:
    plan = snapshot.plan
    of = "" if plan.planned is None else f" of {'at most ' if plan.at_most else ''}{plan.planned}"
    line = Text(f"{snapshot.ended}{of} trials ended", "bold")
    for count, words, style in (
        (snapshot.complete, "complete", _STYLE["complete"]),
        (snapshot.stopped, "stopped early", _STYLE["stopped"]),
        (snapshot.infeasible, "infeasible", _STYLE["infeasible"]),
        (snapshot.failed, "failed", _STYLE["failed"]),
        (len(snapshot.running), "running", ""),
        (snapshot.waiting, "waiting" if snapshot.status == "running" else "under way when it stopped", ""),
    ):
        if count:
            line.append(" · ").append(f"{count} {words}", style)
    return line


def _best(snapshot: Snapshot) -> list[RenderableType]:
    best = snapshot.best
    if best is None:
        return []
    line = Text("best ").append(f"{best.score:.4f}", "bold green")
    early = ", stopped early" * best.stopped
    line.append(printable(f"  trial {best.trial if best.number is None else best.number}, epoch {best.epoch}{early}  "))
    return [_line(line.append(short(best.picked), "dim"))]


def _rungs(snapshot: Snapshot) -> list[RenderableType]:
    if not snapshot.rungs:
        return []
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("rung", "reached", "waiting", "passed on", "stopped", "best"):
        table.add_column(name, justify="right", no_wrap=True)
    for rung in snapshot.rungs:
        counts = (rung.reached, rung.waiting, rung.passed, rung.reached - rung.waiting - rung.passed)
        best = "–" if rung.best is None else f"{rung.best:.4f}"
        table.add_row(f"epoch {rung.epoch}", *(str(count) if rung.reached else "–" for count in counts), best)
    return [Text(), table]


def _gpus(snapshot: Snapshot) -> list[RenderableType]:
    if not snapshot.gpus:
        return []
    each = (f"GPU {gpu.index} {gpu.used:.1f} of {gpu.total:.0f} GiB" for gpu in snapshot.gpus)
    return [_line(Text("   ".join(each), "dim"))]


def _failure(snapshot: Snapshot) -> list[RenderableType]:
    row = snapshot.last_failure
    return [] if row is None else [_line(Text(printable(f"trial {row.number} failed: {row.error}"), "red"))]


def _note(note: str) -> list[RenderableType]:
    return [Text(printable(note), "yellow")] if note else []


def _running(snapshot: Snapshot, width: int, room: int) -> list[RenderableType]:
    if not snapshot.running:
        return []
    hidden = len(snapshot.running) - room if len(snapshot.running) > room else 0
    shown = snapshot.running[: room - 1] if hidden else snapshot.running
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
    wide = width >= _WIDE
    names = ["trial", *(["id"] if wide else []), "epoch", "score", "course"]
    for name in names:
        table.add_column(name, justify="right" if name in ("trial", "epoch", "score") else "left", no_wrap=True)
    table.add_column("values", no_wrap=True, overflow="ellipsis", ratio=1, style="dim")
    for trial in shown:
        table.add_row(*_cells(trial, wide))
    more = [Text(f"and {len(snapshot.running) - len(shown)} more", "dim")] if hidden else []
    return [Text(), table, *more]


def _cells(trial: RunningTrial, wide: bool) -> list[str | Text]:
    number = "–" if trial.number is None else str(trial.number)
    return [
        Text(number, "cyan"),
        *([Text(printable(trial.trial))] if wide else []),
        f"{trial.epochs}/{trial.of}",
        f"{trial.scores[-1]:.4f}" if trial.scores else "starting",
        sparkline(trial.scores, _WIDE_SPARK if wide else _SPARK),
        Text(short(trial.picked)),
    ]


def _line(text: Text) -> Text:
    """One line, cut where the terminal ends."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _spread(values: list[float] | tuple[float, ...], width: int) -> list[float]:
    return [values[round(index * (len(values) - 1) / (width - 1))] for index in range(width)]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
