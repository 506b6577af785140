"""What people see while a study runs: a live panel on a terminal, a line per ended trial elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.config import Trial
from harness.store import EpochRow, TrialRow

_BARS = "▁▂▃▄▅▆▇█"
_STYLE = {"complete": "green", "stopped": "yellow", "failed": "bold red"}


class Progress:
    """Running trials with their scores, counts of the ended and the paused ones, and the best so far."""

    def __init__(self, console: Console, planned: int, max_epochs: int) -> None:
        self.console, self.planned, self.max_epochs = console, planned, max_epochs
        self.started_at = time.monotonic()
        self.running: dict[str, list[float]] = {}
        self.paused: dict[str, list[float]] = {}
        self.ended_rows: list[TrialRow] = []
        self.live = Live(get_renderable=self._panel, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def started(self, trial: Trial) -> None:
        """A trial starts or goes on."""
        self.running.setdefault(trial.id, self.paused.pop(trial.id, []))

    def epoch(self, row: EpochRow) -> None:
        """A trial finished an epoch."""
        scores = self.running.setdefault(row.trial, [])
        del scores[row.epoch - 1 :]
        scores.append(row.score)

    def ended(self, trial_id: str, row: TrialRow | None) -> None:
        """A trial ended, and its line stays on the screen; or it paused."""
        scores = self.running.pop(trial_id, None) or self.paused.pop(trial_id, [])
        if row is None:
            self.paused[trial_id] = scores
        else:
            self.ended_rows.append(row)
            line = _ended_line(row, scores)
            if row.error is None:
                self.console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")
            else:
                # an error is read, copied and searched for: whole, in one line
                self.console.print(line, highlight=False, soft_wrap=True)

    def _panel(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for trial_id, scores in list(self.running.items()):
            last = f"{scores[-1]:.4f}" if scores else "starting"
            epoch = f"epoch {len(scores)}/{self.max_epochs}"
            table.add_row(Text(trial_id, "cyan"), epoch, last, sparkline(scores))
        return Group(Text(self._headline(), "bold"), table)

    def _headline(self) -> str:
        counts = {name: sum(row.outcome == name for row in self.ended_rows) for name in _STYLE}
        scores = [row.score for row in self.ended_rows if row.score is not None and row.outcome != "failed"]
        best = max(scores, default=None)
        paused = f", {len(self.paused)} paused" if self.paused else ""
        return (
            f"{len(self.ended_rows)}/{self.planned} trials: {counts['complete']} complete, {counts['stopped']} "
            f"stopped early, {counts['failed']} failed{paused} · best {'–' if best is None else f'{best:.4f}'} · "
            f"{_clock(time.monotonic() - self.started_at)}"
        )


def sparkline(values: list[float]) -> str:
    """Values as bars from the lowest to the highest of them."""
    if not values:
        return ""
    low, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1))] for value in values)


def _ended_line(row: TrialRow, scores: list[float]) -> Text:
    line = Text(f"{row.number:>4}  ")
    line.append(f"{row.outcome:<9}", _STYLE[row.outcome])
    line.append(f"{row.score:.4f}  " if row.score is not None else "   –    ")
    line.append(f"{row.epochs:>3} epochs  {sparkline(scores):<10}  ")
    picked = "  ".join(f"{name}={_short(value)}" for name, value in row.picked.items())
    return line.append(row.error if row.error else picked, "red" if row.error else "dim")


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
