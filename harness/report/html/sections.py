"""What a study's page is made of: sections of a few kinds of blocks, as values; `page` turns them into HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.html.figured import Figured
from harness.report.table import Table

_NUMBER = re.compile(r"[~<±+−–-]?([.\d][\d.,]*(e[+-]?\d+)?)?( ?%)?")


@dataclass(frozen=True)
class Words:
    """A paragraph; text between two backticks is set as code."""

    text: str
    tone: Literal["plain", "lead", "muted", "warning"] = "plain"


@dataclass(frozen=True)
class Fact:
    """A term, its value set large, and a sentence or two about it."""

    term: str
    value: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """A few facts side by side: the answer at a glance."""

    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Command:
    """Lines for a terminal, with a button that copies them."""

    lines: tuple[str, ...]
    words: str = ""


@dataclass(frozen=True)
class Rows:
    """A table of text. `right`: which columns are set to the right; `marked`: numbers of the rows that stand out."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    right: tuple[bool, ...] = ()
    marked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fold:
    """A text of many lines, shown where its reader asks for it."""

    title: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A small picture as a data URI, with its words for those who do not see it."""

    uri: str
    words: str
    width: int
    height: int


@dataclass(frozen=True)
class Pictures:
    """Frames below each other, a picture of each column side by side."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]


@dataclass(frozen=True)
class Cell:
    """A cell as it is shown, and what it sorts by: a number, or its text."""

    text: str
    value: float | None = None

    @property
    def hidden(self) -> float | None:
        """The value, where its text says less."""
        return None if self.value is None or float(self.text) == self.value else self.value


@dataclass(frozen=True)
class SortedTable:
    """A table that its reader sorts and filters; its first column names the row. `hints`: words to try in the filter.

    `descending`: columns whose first sorting puts the highest on top.
    """

    key: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    hints: tuple[str, ...] = ()
    descending: tuple[str, ...] = ()

    @property
    def right(self) -> tuple[bool, ...]:
        """Which columns hold numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ()
        return tuple(any(c.value is not None for c in column) for column in columns)


Block = Words | Facts | Command | Rows | Fold | Pictures | SortedTable | Figured


@dataclass(frozen=True)
class Section:
    """A part of the page; `key` is a slug, safe as an id in HTML."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole page; `about` are a few words each, below its title."""

    title: str
    about: tuple[str, ...]
    sections: tuple[Section, ...]


def rows_of(table: Table) -> Rows:
    """A report's table as a block."""
    return Rows(table.title, table.columns, table.rows, table.notes, numeric(table.rows))


def rows_from(caption: str, mappings: Sequence[Mapping[str, object]]) -> Rows:
    """A table of mappings of column to value, with the columns of them all in the order in which they appear."""
    columns = tuple(dict.fromkeys(name for mapping in mappings for name in mapping))
    rows = tuple(tuple(shown(mapping.get(name)) for name in columns) for mapping in mappings)
    return Rows(caption, tuple(map(str, columns)), rows, right=numeric(rows))


def numeric(rows: Sequence[Sequence[str]]) -> tuple[bool, ...]:
    """Which columns hold numbers, dashes and empty cells alone, and at least one number."""
    return tuple(_is_numeric(column) for column in zip(*rows, strict=True))


def shown(value: object) -> str:
    """A value in a cell: four digits of a number, a dash for what is missing."""
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_numeric(column: Iterable[str]) -> bool:
    filled = [cell for cell in column if cell.strip("–")]
    return bool(filled) and all(_NUMBER.fullmatch(cell) for cell in filled)
