"""A study's page as one HTML file that needs no network: sections, figures and the library that draws them.

plotly.js is most of the file. It is stored compressed, and unpacked by the browser (DecompressionStream: Chromium 80,
Safari 16.4, Firefox 113), so that a page has 2 MB and not 5. Everything that comes from a study is escaped, in HTML by
jinja2 and in scripts by JSON; the page's policy forbids every request.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from harness.config import read_settings
from harness.report.html.ablation_page import ablation_page
from harness.report.html.figured import Figured
from harness.report.html.replicates_page import replicates_page
from harness.report.html.search_page import search_page
from harness.report.html.sections import Page, rows_from
from harness.store import StudyFolder, write_text

_PAGES = {"search": search_page, "replicates": replicates_page, "ablation": ablation_page}
_HEIGHT = 420  # pixels of a figure that names none
_LEAST_PANEL = 250  # pixels below which a panel of a figure is not squeezed


def write_page(folder: StudyFolder) -> Path:
    """Write report.html into a study's folder and return its path; the same study gives the same bytes.

    Raises:
        StudyError, ConfigError: the folder holds no study.
    """
    path = folder.path / "report.html"
    write_text(path, render(study_page(folder)))
    return path


def study_page(folder: StudyFolder) -> Page:
    """The page of a search, of replicates or of an ablation, as values.

    Raises:
        ConfigError: study.yaml names another kind.
    """
    return _PAGES[read_settings(folder.settings).kind](folder)


def render(page: Page) -> str:
    """A page as HTML text."""
    figures = [b for s in page.sections for b in s.blocks if isinstance(b, Figured) and b.figure is not None]
    library = packed_library() if figures else ""
    return _environment().get_template("page.html").render(page=page, library=library)


@lru_cache(maxsize=1)
def packed_library() -> str:
    """plotly.js, gzip and base64."""
    # the time is left out of the header: the same library gives the same text
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def figure_json(figure: go.Figure) -> Markup:
    """A figure's data and layout as JSON that can stand in a script; the page gives it the colours of text and grid."""
    values = json.loads(figure.to_json(engine="json") or "{}")
    layout = {k: v for k, v in values["layout"].items() if k not in ("template", "width")}
    return as_script({"data": values["data"], "layout": layout})


def as_script(value: Any) -> Markup:
    """A value as JSON without any character that could end a script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def figure_height(figure: go.Figure) -> int:
    """Pixels to keep free until a figure is drawn."""
    return int(figure.layout.height or _HEIGHT)


def least_width(figure: go.Figure) -> int:
    """Pixels below which a figure scrolls in its box: each panel beside another one needs some."""
    starts = {axis.domain[0] for axis in figure.select_xaxes() if axis.domain}
    # half a panel may be the margin of a row of colour bars or small plots
    return _LEAST_PANEL * len(starts) if len(starts) > 1 else 0


@lru_cache(maxsize=1)
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("harness.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"prose": _prose, "figure_json": figure_json, "rows_from": lambda table: rows_from("", table)}
    env.globals |= {
        "kind": lambda block: type(block).__name__, "figure_height": figure_height, "least_width": least_width,
    }  # fmt: skip
    return env


def _prose(text: str) -> Markup:
    """Escaped text, with what stands between two backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
