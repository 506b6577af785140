"""One figure of a study's page, with the words that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import plotly.graph_objects as go


@dataclass(frozen=True)
class Figured:
    """A figure, what it shows, and what it cannot tell.

    `key` is a slug, safe as an id in HTML. `words` is one or two plain sentences. `figure` is None where there is
    too little to draw: `words` then says why. `table` holds the numbers behind the figure, one mapping of column to
    value per row, where a table says them better or as well. Each of `warnings` is one sentence shown beside it.
    """

    key: str
    title: str
    words: str
    figure: go.Figure | None = None
    table: tuple[Mapping[str, object], ...] | None = None
    warnings: tuple[str, ...] = ()
