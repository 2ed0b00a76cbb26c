"""The figures of a study: panels for each metric and facet, one legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import pandas as pd

from hermes_sim.analysis.figures.heat import fit
from hermes_sim.analysis.picture import legend_below, picture, styled
from hermes_sim.explore.study.panels import PANELS, Panel, axis_title, names_of
from hermes_sim.explore.study.points import points_of
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_figure import StudyFigure
from hermes_sim.scenario.sweep import TIER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_SIZE: Final = (3.4, 2.7)
"""Inches."""
LEAST_WIDTH: Final = 6.0
"""Inches: a legend of several columns needs as much."""
MOST_LEGEND_COLUMNS: Final = 4


@styled
def draw(study: StudyFile, figure: StudyFigure, runs: pd.DataFrame) -> Figure:
    """A matplotlib figure of a table of runs (explore/run_table.py)."""
    named = [figure.x, *figure.where, *(axis for axis in (figure.series, figure.facets) if axis is not None)]
    points = points_of(study, runs, figure.table, tiers=TIER in named).at(figure.where)
    facets = [] if figure.facets is None else names_of(study, figure, figure.facets)
    parts = [points.at({str(figure.facets): (facet,)}) for facet in facets] or [points]
    across = len(figure.y) == 1  # the facets of one metric stand side by side
    shape = (1, len(parts)) if across else (len(parts), len(figure.y))
    drawn = picture(max(PANEL_SIZE[0] * shape[1] + 0.6, LEAST_WIDTH), PANEL_SIZE[1] * shape[0] + 0.9)
    shared: Literal["none", "all", "col"] = "none" if figure.kind == "heat_map" else "all" if across else "col"
    grid = drawn.subplots(*shape, squeeze=False, sharey=shared)
    for column, metric in enumerate(figure.y):
        panels = [Panel(study, figure, part, metric) for part in parts]
        places = list(grid[0]) if across else list(grid[:, column])
        for row, (panel, axes) in enumerate(zip(panels, places, strict=True)):
            PANELS[figure.kind](panel, axes, panels)
            if across and row:
                axes.set_ylabel("")
            if facets:
                axes.set_title(f"{axis_title(study, str(figure.facets))}: {facets[row]}")
        if shared != "none" and "y" not in figure.log:
            places[0].set_ylim(bottom=0.0)  # of all that share it, when all is drawn
    _legend(study, figure, drawn)
    if figure.kind == "heat_map":
        fit(list(grid.flat))
    return drawn


def _legend(study: StudyFile, figure: StudyFigure, drawn: Figure) -> None:
    if figure.series is None or figure.kind == "heat_map":
        return
    names, title = names_of(study, figure, figure.series), axis_title(study, figure.series)
    legend_below(drawn, columns=MOST_LEGEND_COLUMNS, title=title, order=names)
