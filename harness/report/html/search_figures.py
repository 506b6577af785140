"""The figures of a search's page, in the order in which they answer questions.

Each is drawn from the rows alone, so that the same study gives the same figures. None fixes a colour of the page
(ground, text, grid); all points are plain SVG, as WebGL needs a GPU and a policy that the page does not have.
"""

from __future__ import annotations

from harness.report.html.figured import Figured
from harness.report.html.figures_classes import class_figure
from harness.report.html.figures_cost import (
    against_memory,
    against_parameters,
    against_speed,
    epochs_run,
    hours_spent,
)
from harness.report.html.figures_curves import best_over_cost, best_over_trials, learning_curves
from harness.report.html.figures_parameters import parallel_coordinates, slices
from harness.report.html.figures_trust import importance_figure, stopping_figure
from harness.report.html.search_data import SearchData


def search_figures(data: SearchData) -> list[Figured]:
    """Every figure of a search; where there is too little to draw, the figure is missing and its words say why."""
    cost = data.space.search.cost
    first = {"parameters": against_parameters, "ms_per_image": against_speed}.get(cost)
    figures = _in_order(data)
    if first is None:
        return figures
    key = first(data).key
    # the front of two objectives is the answer
    return sorted(figures, key=lambda figure: figure.key != key)


def _in_order(data: SearchData) -> list[Figured]:
    return [
        learning_curves(data),
        best_over_trials(data),
        best_over_cost(data),
        parallel_coordinates(data),
        *slices(data),
        importance_figure(data),
        against_parameters(data),
        against_speed(data),
        against_memory(data),
        stopping_figure(data),
        epochs_run(data),
        hours_spent(data),
        class_figure(data),
    ]
