"""Which class was taken for which: the confusion matrix for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

NONE = "none"
#: per cent of a class from which a mistake stands out, and a little
_MUCH, _SOME = 10, 1
_LETTERS = 4
_FIRST = "truth ↓"
#: cells of a column, with the gap before it
_CELL = 6
#: mistakes that are named where the matrix is too wide
_NAMED = 12


def confusion_table(matrix: NDArray[np.int64], names: Sequence[str], width: int = 100) -> RenderableType:
    """The matrix of a whole data set (C, C+1), rows truth, columns prediction, in per cent of each row.

    Where `width` characters are too few for it, the largest mistakes instead. A class that the truth lacks has no row
    of numbers, and says so. The column of predictions of no class is left out where there are none.
    """
    matrix = np.asarray(matrix)
    labels = [*names, NONE] if matrix[:, -1].any() else list(names)
    shares = row_shares(matrix)
    first = max(map(len, [*names, _FIRST])) + 2
    if first + _CELL * len(labels) + len("pixels") + 8 > width:
        return _largest_mistakes(matrix, names)
    table = _plain()
    table.add_column(_FIRST, no_wrap=True)
    for label in short_names(labels):
        table.add_column(label, justify="right", no_wrap=True, min_width=_LETTERS)
    table.add_column("pixels", justify="right", style="dim", no_wrap=True)
    for i, name in enumerate(names):
        pixels = int(matrix[i].sum())
        if not pixels:
            table.add_row(Text(name, "dim"), *[Text("–", "dim")] * len(labels), Text("absent"))
            continue
        table.add_row(name, *(_cell(shares[i, j], i == j) for j in range(len(labels))), counted(pixels))
    title = Text("what each class was taken for, % of its true pixels", "bold")
    return Group(title, table, _footnote(matrix, names))


def row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per cent of each row's pixels, (C, C+1); nan in a row without pixels."""
    with np.errstate(invalid="ignore"):
        return 100 * matrix / matrix.sum(axis=1, keepdims=True)


def mistakes(matrix: NDArray[np.int64], names: Sequence[str]) -> list[tuple[str, str, int]]:
    """(true class, predicted class, pixels) of every kind of mistake, the most pixels first."""
    labels = [*names, NONE]
    wrong = matrix.astype(np.int64).copy()
    np.fill_diagonal(wrong, 0)
    found = [(names[i], labels[j], int(wrong[i, j])) for i, j in zip(*wrong.nonzero(), strict=True)]
    return sorted(found, key=lambda mistake: -mistake[2])


def short_names(names: Sequence[str]) -> list[str]:
    """Column heads of four letters (Dry Grass: DGra), or numbers from 0 where two would be the same."""
    heads = [_short(name) for name in names]
    return heads if len(set(heads)) == len(heads) else [str(i) for i in range(len(names))]


def counted(pixels: int) -> str:
    """A number of pixels in at most five characters: 998, 12.3k, 4.56M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,600 is 1M, not 1e+03k
        if pixels >= 0.9995 * limit:
            return f"{pixels / limit:.3g}{unit}"
    return str(pixels)


def _short(name: str) -> str:
    first, *others = name.replace("_", " ").split() or [name]
    return first[:_LETTERS] if not others else first[0] + others[-1][: _LETTERS - 1]


def _cell(share: float, right: bool) -> Text:
    if share == 0:
        return Text("·", "dim")
    text = f"{share:.1f}" if 0.05 <= share < 99.95 else "100" if share == 100 else ">99.9" if share > 99 else "<0.1"
    if right:
        return Text(text, "bold green")
    return Text(text, "red" if share >= _MUCH else "yellow" if share >= _SOME else "dim")


def _footnote(matrix: NDArray[np.int64], names: Sequence[str]) -> Text:
    absent = [name for name, row in zip(names, matrix, strict=True) if not row.sum()]
    predicted = [n for n in absent if matrix[:, list(names).index(n)].any()]
    text = "none of the frames holds " + ", ".join(absent) if absent else "every class is in the truth"
    return Text(text + (f"; predicted all the same: {', '.join(predicted)}" if predicted else ""), "dim")


def _largest_mistakes(matrix: NDArray[np.int64], names: Sequence[str]) -> RenderableType:
    table = _plain()
    for name in ("truth", "taken for"):
        table.add_column(name)
    for name in ("% of the class", "pixels"):
        table.add_column(name, justify="right")
    rows = dict(zip(names, matrix.sum(axis=1), strict=True))
    for truth, predicted, pixels in mistakes(matrix, names)[:_NAMED]:
        table.add_row(truth, predicted, f"{100 * pixels / rows[truth]:.1f}", counted(pixels))
    title = Text("largest confusions (the whole matrix needs a wider terminal; --json has it)", "bold")
    return Group(title, table, _footnote(matrix, names))


def _plain() -> Table:
    # a title of its own would wrap at the width of the table
    return Table(box=None, pad_edge=False, padding=(0, 1))
