"""A table of text, and its three files: Markdown, CSV and LaTeX (booktabs)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.store import write_text

_NUMBER = re.compile(r"[~<±+-]?[.\d][\d.,]*(e[+-]?\d+)?%?")
_MARKDOWN = re.compile(r"([\\|*~`<\[\]$])")
_WIDE = 30  # characters from which a LaTeX column wraps its text
_LONG = 40  # rows from which a LaTeX table runs over pages
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}", "*": "{*}", "\n": " ", "\r": " ", "\t": " ",
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}", "→": r"\ensuremath{\to}", "≤": r"\ensuremath{\leq}", "≥": r"\ensuremath{\geq}",
    "−": r"\ensuremath{-}", "·": r"\ensuremath{\cdot}", "½": r"\ensuremath{\frac{1}{2}}", "σ": r"\ensuremath{\sigma}",
    "γ": r"\ensuremath{\gamma}", "Δ": r"\ensuremath{\Delta}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A title, columns and rows of text, and notes for below; `name` is its file name without an ending."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.name}: row {number} has {len(row)} cells for {len(self.columns)} columns; "
                    f"give {len(self.columns)}"
                )


def to_markdown(table: Table) -> str:
    """A heading, a pipe table with numbers to the right, and the notes."""
    rules = ["---:" if right else "---" for right in _numeric(table)]
    lines = [_pipes(map(_markdown, table.columns)), _pipes(rules)]
    lines += [_pipes(map(_markdown, row)) for row in table.rows]
    notes = [f"- {_markdown(note)}" for note in table.notes]
    return "\n".join([f"# {_markdown(table.title)}", "", *lines, *[""] * bool(notes), *notes]) + "\n"


def to_csv(table: Table) -> str:
    """The columns and rows, unchanged, with a line feed at the end of a line; neither title nor notes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def to_latex(table: Table) -> str:
    """A booktabs table, a longtable from 41 rows on; every cell is escaped, wide columns wrap."""
    long = len(table.rows) > _LONG
    head = rf"{_cells(table.columns)} \\"
    caption = rf"\caption{{{_latex(table.title)}}}\label{{tab:{table.name}}}"
    rows = [rf"{_cells(row)} \\" for row in table.rows]
    notes = [rf"\par\noindent {_latex(note)}" for note in table.notes]
    columns = "".join(_latex_columns(table))
    if long:
        top = [r"\toprule", head, r"\midrule"]
        body = [
            rf"{{\small\begin{{longtable}}{{{columns}}}", rf"{caption} \\", *top, r"\endfirsthead", *top, r"\endhead",
            r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}", *notes, "}",
        ]  # fmt: skip
    else:
        body = [
            r"\begin{table}", r"\centering\small", caption, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head,
            r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}",
        ]  # fmt: skip
    needs = "% needs \\usepackage[T1]{fontenc} and \\usepackage{booktabs" + ",longtable" * long + "}"
    return "\n".join([needs, *body]) + "\n"


def write_table(table: Table, out: Path) -> list[Path]:
    """Write `name`.md, .csv and .tex into an existing folder; returns the three paths."""
    texts = {".md": to_markdown(table), ".csv": to_csv(table), ".tex": to_latex(table)}
    paths = [out / f"{table.name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def _numeric(table: Table) -> list[bool]:
    """Which columns hold nothing but numbers and empty cells."""
    filled = ([row[i] for row in table.rows if row[i]] for i in range(len(table.columns)))
    return [bool(cells) and all(_NUMBER.fullmatch(cell) for cell in cells) for cells in filled]


def _latex_columns(table: Table) -> list[str]:
    widest = [max((len(row[i]) for row in table.rows), default=0) for i in range(len(table.columns))]
    return [
        "r" if right else "p{4.5cm}" if width > _WIDE else "l"
        for right, width in zip(_numeric(table), widest, strict=True)
    ]


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text).replace("\r\n", "\n").replace("\n", "<br>")


def _cells(row: tuple[str, ...]) -> str:
    return " & ".join(map(_latex, row))


def _latex(text: str) -> str:
    # hyphens in a row would print as a dash
    return re.sub("-(?=-)", "-{}", "".join(_LATEX.get(letter, letter) for letter in text))
