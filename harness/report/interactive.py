"""The plots of an ablation in one HTML file that opens without a network, light or dark as its reader has it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from harness.report.plot_shapes import (
    INK,
    MUTED,
    Chart,
    HeatMap,
    LineChart,
    Panel,
    PlotData,
    Point,
    RowChart,
    Series,
    away_from_zero,
    legend_names,
)
from harness.report.plot_style import hover_safe, plot_safe, short
from harness.store import write_text

#: stands out from a light and from a dark page
_NEUTRAL = "#868e99"
_MARKERS = {"dot": "circle", "speck": "circle", "ring": "circle-open", "diamond": "diamond"}
# not opaque: text of the page's colour is readable on them, whether the page is light or dark
_DIVERGING = ((0.0, "rgba(213,94,0,0.7)"), (0.5, "rgba(134,142,153,0.08)"), (1.0, "rgba(0,114,178,0.7)"))
_SHARED = {"shared_xaxes": "all", "shared_yaxes": "all", "horizontal_spacing": 0.02}
_ROW = 26  # pixels of a row

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

# $ marks what is filled in. The policy forbids every request, so that the file is the same without a network.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$study: plots</title>
<style>
:root { --page: #ffffff; --ink: #22262b; --muted: #6b7280; --line: #e4e7eb; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e6e9ed; --muted: #9aa3ae; --line: #2c323a; } }
body { margin: 0 auto; max-width: 1040px; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.05rem; margin: 2.5rem 0 .25rem; }
nav, .notes, .left-out { color: var(--muted); font-size: .85rem; } a { color: inherit; }
nav a { margin-right: 1em; white-space: nowrap; display: inline-block; } .notes { margin: .25rem 0 0; }
</style>
</head>
<body>
<h1>$study</h1>
<nav>$links</nav>
$sections
$left_out
<script>$library</script>
<script>
const figures = $figures;
const scheme = matchMedia("(prefers-color-scheme: dark)");
function themed(layout) {
  const css = getComputedStyle(document.documentElement);
  const [ink, line, page] = ["--ink", "--line", "--page"].map(name => css.getPropertyValue(name).trim());
  const copy = structuredClone(layout);
  copy.font = {...copy.font, color: ink};
  copy.modebar = {bgcolor: "rgba(0,0,0,0)", color: line, activecolor: ink};
  copy.hoverlabel = {bgcolor: page, bordercolor: line, font: {color: ink}};
  for (const name of Object.keys(copy).filter(key => /^[xy]axis/.test(key)))
    Object.assign(copy[name], {gridcolor: line, zerolinecolor: line, linecolor: line});
  return copy;
}
function written(data) {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  return data.map(trace => trace.type === "heatmap" ? {...trace, textfont: {...trace.textfont, color: ink}} : trace);
}
function draw() {
  for (const [name, figure] of Object.entries(figures))
    Plotly.react(name, written(figure.data), themed(figure.layout), {
      responsive: true, displaylogo: false, displayModeBar: "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
}
draw();
scheme.addEventListener("change", draw);
</script>
</body>
</html>
""")


def write_interactive(data: PlotData, out: Path) -> Path:
    """Write plots.html into an existing folder: every chart, plotly.js once, and no request to anywhere.

    The same data give the same bytes.
    """
    path = out / "plots.html"
    links = "".join(f'<a href="#{c.name}">{html.escape(c.title)}</a>' for c in data.charts)
    figures = ",\n".join(f'"{c.name}-plot": {_json(figure_of(c))}' for c in data.charts)
    text = _PAGE.substitute(
        study=html.escape(data.study),
        policy=_POLICY,
        links=links,
        sections="\n".join(map(_section, data.charts)),
        left_out=_left_out(data),
        library=get_plotlyjs(),
        figures=f"{{{figures}}}",
    )
    write_text(path, text)
    return path


def figure_of(chart: Chart) -> go.Figure:
    """A chart as a plotly figure without a title; its colours of text and grid come from the page."""
    if isinstance(chart, LineChart):
        figure = _line_chart(chart)
    else:
        figure = _row_chart(chart) if isinstance(chart, RowChart) else _heat_map(chart)
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12},
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        hovermode="closest",
        bargap=0.25,
    )
    figure.update_xaxes(automargin=True, title_standoff=8)
    figure.update_yaxes(automargin=True, title_standoff=8)
    figure.update_annotations(font={"size": 12})
    return figure


def _section(chart: Chart) -> str:
    notes = "".join(f'<p class="notes">{html.escape(note)}</p>' for note in chart.notes)
    title = html.escape(chart.title)
    return f'<section id="{chart.name}"><h2>{title}</h2><div id="{chart.name}-plot"></div>{notes}</section>'


def _left_out(data: PlotData) -> str:
    if not data.left_out:
        return ""
    items = "".join(f"<li>{html.escape(f'{one.name}: {one.reason}')}</li>" for one in data.left_out)
    return f'<section class="left-out"><h2>Left out</h2><ul>{items}</ul></section>'


def _json(figure: go.Figure) -> str:
    # inside a script, "</" could end it
    return (figure.to_json(engine="json") or "").replace("</", "<\\/")


def _line_chart(chart: LineChart) -> go.Figure:
    down = -(-len(chart.panels) // chart.columns)
    shared = "all" if chart.shared else False
    figure = _subplots(chart, down, shared_xaxes=shared, shared_yaxes=shared, vertical_spacing=min(0.16, 0.4 / down))
    left = set(legend_names(chart.panels))
    for i, panel in enumerate(chart.panels):
        place = {"row": i // chart.columns + 1, "col": i % chart.columns + 1}
        for series in panel.series:
            # a name has one entry, for all panels and seeds
            first = series.style != "thin" and series.name in left
            left -= {series.name} if first else set()
            figure.add_trace(_line(series, first), **place)
        bottom = not chart.shared or i + chart.columns >= len(chart.panels)
        figure.update_xaxes(title_text=panel.x_title if bottom else "", **place)
        figure.update_yaxes(title_text="" if chart.shared and i % chart.columns else panel.y_title, **place)
        if panel.log:
            figure.update_yaxes(type="log", exponentformat="e", **place)
        if panel.ticks:
            names = [plot_safe(short(name)) for name in panel.ticks]
            figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, **place)
    return _sized(figure, 380 if len(chart.panels) == 1 else 240 * down)


def _line(series: Series, legend: bool) -> go.Scatter:
    dots, thin = series.style in _MARKERS, series.style == "thin"
    labels, values = [p.label for p in series.points], _values(series.points)
    named = any(labels)
    sides = [("top left", "bottom right")[i % 2] for i in range(len(labels))]
    mode = "markers" if dots else "lines" if thin else "lines+markers"
    # of many curves, a text for each point and all digits would be most of the page
    plain = not named and all(np.isnan(p.low) and not p.start for p in series.points)
    hover = f"{hover_safe(series.name)}, %{{x}}<br>%{{y:.4g}}" if plain else "%{customdata}"
    return go.Scatter(
        x=[p.at for p in series.points],
        y=[v if v is None else float(f"{v:.5g}") for v in values] if plain else values,
        mode=mode + "+text" * named,
        text=labels if named else None,
        textposition=sides if named else None,
        name=plot_safe(series.name),
        legendgroup=series.name,
        showlegend=legend,
        opacity=0.4 if thin else 1,
        line={
            "color": _colour(series.colour),
            "width": 1 if thin else 2,
            "dash": "dot" if series.colour == INK else "solid",
        },
        marker={"color": _colour(series.colour), "size": 8 if dots else 4},
        error_y=_error(series.points) if named else None,
        hoverinfo="skip" if thin else None,
        hovertemplate=None if thin else f"{hover}<extra></extra>",
        customdata=None if plain else [_hover(series.name, p) for p in series.points],
    )


def _row_chart(chart: RowChart) -> go.Figure:
    down = -(-len(chart.panels) // chart.columns)
    figure = _subplots(chart, down, **_SHARED, vertical_spacing=min(0.12, 0.4 / down))
    left = set(legend_names(chart.panels))
    for i, panel in enumerate(chart.panels):
        place = {"row": i // chart.columns + 1, "col": i % chart.columns + 1}
        for series in panel.series:
            first = series.name in left
            left -= {series.name}
            bar = series.style in ("bar", "outline")
            figure.add_trace(_bars(series, first, _grouped(panel)) if bar else _marks(series, first), **place)
        if i + chart.columns >= len(chart.panels):
            figure.update_xaxes(showticklabels=True, title_text=chart.value_title, **place)
    if not np.isnan(chart.reference):
        figure.add_vline(chart.reference, line={"color": _NEUTRAL, "width": 1})
    if not np.isnan(chart.band):
        ends = {"x0": chart.reference - chart.band, "x1": chart.reference + chart.band}
        figure.add_vrect(**ends, fillcolor=_NEUTRAL, opacity=0.15, line_width=0)
    rows = list(chart.rows)
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=rows,
        range=[len(rows) - 0.5, -0.5],
        showgrid=False,
        tickvals=rows,
        ticktext=[plot_safe(short(row)) for row in rows],
    )
    figure.update_xaxes(zeroline=False, range=chart.limits)
    tall = down * (_ROW * len(rows) * (1 if down == 1 else 0.8) + 30)
    return _sized(figure, tall, barmode="group" if any(map(_grouped, chart.panels)) else "overlay")


def _grouped(panel: Panel) -> bool:
    """Whether a row has several bars."""
    bars = [p.at for s in panel.series if s.style in ("bar", "outline") for p in s.points]
    return len(bars) > len(set(bars))


def _bars(series: Series, legend: bool, grouped: bool) -> go.Bar:
    hollow, colour = series.style == "outline", _colour(series.colour)
    edge = {"color": colour, "width": 1.5 if hollow else 0}
    return go.Bar(
        orientation="h",
        y=[p.at for p in series.points],
        x=[p.value - p.start for p in series.points],
        base=[p.start for p in series.points],
        name=plot_safe(series.name),
        legendgroup=series.name,
        showlegend=legend,
        offsetgroup=series.name if grouped else None,
        customdata=[_hover(f"{p.at}, {series.name}", p) for p in series.points],
        hovertemplate="%{customdata}<extra></extra>",
        error_x=_error(series.points),
        marker={"color": "rgba(0,0,0,0)" if hollow else colour, "opacity": 0.8, "line": edge},
    )


def _marks(series: Series, legend: bool) -> go.Scatter:
    if series.style == "connector":
        x = [v for i in range(0, len(series.points), 2) for v in (*_values(series.points[i : i + 2]), None)]
        y = [v for i in range(0, len(series.points), 2) for v in (*(p.at for p in series.points[i : i + 2]), None)]
        return go.Scatter(
            x=x, y=y, mode="lines", line={"color": _NEUTRAL, "width": 1}, showlegend=False, hoverinfo="skip"
        )
    edge = {"width": 1.5} if series.style == "ring" else {"width": 0.5, "color": _NEUTRAL}
    return go.Scatter(
        x=_values(series.points),
        y=[p.at for p in series.points],
        mode="markers",
        name=plot_safe(series.name),
        legendgroup=series.name,
        showlegend=legend,
        error_x=_error(series.points) if series.style == "dot" else None,
        marker={"color": _colour(series.colour), "size": 9, "symbol": _MARKERS[series.style], "line": edge},
        customdata=[_hover(f"{p.at}, {series.name}", p) for p in series.points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _heat_map(chart: HeatMap) -> go.Figure:
    values = [[None if np.isnan(p.value) else 100 * p.value for p in row] for row in chart.cells]
    most = max([1.0, *(abs(v) for row in values for v in row if v is not None)])
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(map(plot_safe, chart.columns)),
            y=[plot_safe(short(row)) for row in chart.rows],
            zmin=-most,
            zmax=most,
            colorscale=_DIVERGING,
            text=[[_cell(p) for p in row] for row in chart.cells],
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=[
                [_hover(f"{name}, {p.at}", p) for p in row] for name, row in zip(chart.rows, chart.cells, strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
            xgap=2,
            ygap=2,
            colorbar={
                "title": {"text": chart.value_title, "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
            },
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    return _sized(figure, 30 * len(chart.rows))


def _cell(p: Point) -> str:
    text = "" if np.isnan(p.value) else f"{100 * p.value:+.1f}"
    return f"<b>{text}</b>" if away_from_zero(p) else text


def _sized(figure: go.Figure, tall: float, **layout: object) -> go.Figure:
    """Axes of about that height in pixels, with a legend of as many rows as it needs below."""
    letters = sum(len(trace.name or "") + 8 for trace in figure.data if trace.showlegend)
    below = 60 + 20 * -(-letters // 120)
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": -52 / tall, "yanchor": "top"}
    figure.update_layout(height=tall + 34 + below, legend=legend, **layout)
    return figure


def _subplots(chart: LineChart | RowChart, down: int, **options: object) -> go.Figure:
    titles = [plot_safe(short(p.title, 34)) for p in chart.panels]
    return make_subplots(down, chart.columns, subplot_titles=titles if any(titles) else None, **options)


def _hover(name: str, p: Point) -> str:
    at = "" if isinstance(p.at, str) or p.label else f", {p.at:g}"
    inside = "" if np.isnan(p.low) else f" [{p.low:.4f}, {p.high:.4f}]"
    moved = f"<br>{p.value - p.start:+.4f} from {p.start:.4f}" if p.start else ""
    return f"{html.escape(p.label or name.rstrip(', '))}{at}<br>{p.value:.4g}{inside}{moved}"


def _values(points: Sequence[Point]) -> list[float | None]:
    return [None if np.isnan(p.value) else p.value for p in points]


def _error(points: Sequence[Point]) -> dict[str, object] | None:
    if all(np.isnan(p.low) for p in points):
        return None
    up = [0.0 if np.isnan(p.high) else p.high - p.value for p in points]
    down = [0.0 if np.isnan(p.low) else p.value - p.low for p in points]
    look = {"thickness": 1.2, "width": 3, "color": _NEUTRAL}
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down} | look


def _colour(name: str) -> str:
    return _NEUTRAL if name in (INK, MUTED) else name
