"""The summary of an ablation for a terminal: its grids of effects and factors, and its sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import table as rich_table
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from harness.ablate.effects import Effect
from harness.report.ablation_effects import EffectRow, warnings_of
from harness.report.ablation_rules import gain_of, gain_pairs
from harness.report.ablation_shared import DASH, number, p_value, percent, signed, span
from harness.report.records import AblationRecords
from harness.report.table import Table

_WIDE = 90  # columns of a terminal from which a table shows everything
_WORDS = ("arm", "factor", "effect", "verdict", "guess", "authors' guess")


@dataclass(frozen=True)
class _Fitting:
    """A table for a wide terminal, and one of fewer columns."""

    title: str
    wide: rich_table.Table
    narrow: rich_table.Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.title, "bold")
        yield self.wide if options.max_width >= _WIDE else self.narrow


def headline(records: AblationRecords) -> str:
    """The study's name, design, scale and seeds."""
    asked = records.settings
    return f"{records.folder.name}: {asked.ablation.design.kind}, scale {asked.scale}, seeds {asked.seeds}"


def effects_on_screen(title: str, rows: Sequence[EffectRow], records: AblationRecords) -> _Fitting:
    """Every row's score, gain and verdict."""
    guesses = any(records.arms[row.arm].guess for row in rows)
    wide = _grid(["arm", "n", "mIoU", "gain", "95 % interval", "Holm p", "verdict"] + ["guess"] * guesses)
    narrow = _grid(["arm", "mIoU", "gain", "verdict"])
    styles = {"better": "green", "worse": "red"}
    for row in rows:
        e = row.effect
        score = number(row.score.point) if row.score else DASH
        gain, *rest = [signed(e.difference.point), span(e.difference, signed), p_value(e.p_holm)] if e else [""] * 3
        verdict = Text(row.said, styles.get(row.said, "dim"))
        guess = [Text(records.arms[row.arm].guess or "", "dim")] * guesses
        wide.add_row(*map(Text, (row.arm, str(row.n), score, gain, *rest)), verdict, *guess)
        narrow.add_row(*map(Text, (row.arm, score, gain)), verdict)
    return _Fitting(title, wide, narrow)


def factors_on_screen(table: Table, wide: Sequence[str], narrow: Sequence[str]) -> _Fitting:
    """Some columns of a table of factors."""
    grids = []
    for columns in (wide, narrow):
        grid = _grid(columns)
        for row in table.rows:
            grid.add_row(*(Text(row[table.columns.index(column)]) for column in columns))
        grids.append(grid)
    return _Fitting(table.title, *grids)


def sentences(records: AblationRecords, rows: Sequence[EffectRow]) -> list[Text]:
    """What the effects come to, what limits them, and what their verdicts rest on."""
    effects = [row.effect for row in rows if row.effect]
    found = [Text(_resolved(effects), "bold")] if effects else []
    tested = [e for e in effects if not math.isnan(e.resolvable)]
    if tested:
        least, most = (_at_most_one(f(e.resolvable for e in tested)) for f in (min, max))
        found.append(
            Text(
                f"Another seed alone moves a score by {number(tested[0].noise_floor)} (noise floor); the smallest "
                f"difference that this study resolves is {least if least == most else f'{least} to {most}'}."
            )
        )
    found += [Text(f"{note}.", "yellow") for note in warnings_of(records, rows)]
    found += [Text(sentence, "yellow") for sentence in _denominator_sentences(records)]
    if any(e.interval == "bootstrap over images" for e in effects):
        found.append(Text("Intervals are over images: other frames, not another training.", "dim"))
    rests = "Verdicts: paired t test over seeds, Holm's p at most 0.05. Not resolved is not no effect."
    return [*found, Text(rests, "dim")]


def _grid(columns: Sequence[str]) -> rich_table.Table:
    """An empty table in which words may wrap and numbers may not."""
    table = rich_table.Table(box=None, pad_edge=False)
    for column in columns:
        words = column in _WORDS
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _resolved(effects: Sequence[Effect]) -> str:
    words = [(word, [e.arm for e in effects if e.verdict == word]) for word in ("better", "worse")]
    said = [f"{word}: {', '.join(arms)}" for word, arms in words if arms]
    left = sum(e.verdict == "not resolved" for e in effects)
    return "; ".join([*said, f"not resolved: {left} of {len(effects)}"])


def _denominator_sentences(records: AblationRecords) -> list[str]:
    gains = [(*pair, gain) for pair in gain_pairs(records) if (gain := gain_of(records, *pair)) and gain.gone]
    return [
        f"{arm} against {against}, {gain.split} frames: {signed(gain.union)} under union_present, "
        f"{signed(gain.same)} over the same classes; {percent(gain.share)} is only the change of denominator."
        for arm, against, gain in gains
        if not math.isnan(gain.share)
    ]


def _at_most_one(difference: float) -> str:
    """A difference of scores, which lie between 0 and 1."""
    return number(difference) if difference < 1 else "more than any (these seeds resolve nothing)"
