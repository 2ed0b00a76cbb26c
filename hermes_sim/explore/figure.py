"""The figures of a study: panels for each metric and facet, one legend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pandas as pd

from hermes_sim.explore.panels import PANELS, Panel, axis_title, names_of
from hermes_sim.explore.points import points_of
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_figure import StudyFigure
from hermes_sim.scenario.sweep import TIER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_SIZE: Final = (3.4, 2.7)
"""Inches."""
LEAST_WIDTH: Final = 6.0
"""Inches: a legend of several columns needs as much."""
DPI: Final = 150
MOST_LEGEND_COLUMNS: Final = 4
FIXED_METADATA: Final[dict[str, dict[str, Any]]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
"""By format: equal runs give equal files."""


def draw(study: StudyFile, figure: StudyFigure, runs: pd.DataFrame) -> Figure:
    """A matplotlib figure of a table of runs (explore/run_table.py)."""
    from matplotlib.figure import Figure

    named = [figure.x, *figure.where, *(axis for axis in (figure.series, figure.facets) if axis is not None)]
    points = points_of(study, runs, figure.table, tiers=TIER in named).at(figure.where)
    facets = [] if figure.facets is None else names_of(study, figure, figure.facets)
    parts = [points.at({str(figure.facets): (facet,)}) for facet in facets] or [points]
    across = len(figure.y) == 1  # the facets of one metric stand side by side
    shape = (1, len(parts)) if across else (len(parts), len(figure.y))
    size = (max(PANEL_SIZE[0] * shape[1] + 0.6, LEAST_WIDTH), PANEL_SIZE[1] * shape[0] + 0.9)
    drawn = Figure(figsize=size, layout="constrained", dpi=DPI)
    shared: Literal["none", "all", "col"] = "none" if figure.kind == "heat_map" else "all" if across else "col"
    grid = drawn.subplots(*shape, squeeze=False, sharey=shared)
    for column, metric in enumerate(figure.y):
        panels = [Panel(study, figure, part, metric) for part in parts]
        places = list(grid[0]) if across else list(grid[:, column])
        for row, (panel, axes) in enumerate(zip(panels, places, strict=True)):
            PANELS[figure.kind](panel, axes, panels)
            axes.tick_params(which="both", labelsize="small")
            if across and row:
                axes.set_ylabel("")
            if facets:
                axes.set_title(f"{axis_title(study, str(figure.facets))}: {facets[row]}", fontsize="small")
        if shared != "none" and "y" not in figure.log:
            places[0].set_ylim(bottom=0.0)  # of all that share it, when all is drawn
    _legend(study, figure, drawn, grid)
    return drawn


def save_figure(drawn: Figure, path: Path) -> None:
    """By its suffix PDF, PNG or SVG; text stays text. Raises OSError."""
    import matplotlib as mpl

    kind = path.suffix.removeprefix(".")
    with mpl.rc_context({"svg.hashsalt": "hermes-sim", "svg.fonttype": "none", "pdf.fonttype": 42}):
        drawn.savefig(path, format=kind, metadata=FIXED_METADATA[kind])


def _legend(study: StudyFile, figure: StudyFigure, drawn: Figure, grid: Any) -> None:
    if figure.series is None or figure.kind == "heat_map":
        return
    pairs = (pair for axes in grid.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    found = {label: handle for handle, label in pairs}
    names = [name for name in names_of(study, figure, figure.series) if name in found]
    drawn.legend(
        [found[name] for name in names], names, loc="outside lower center",
        ncols=max(1, min(len(names), MOST_LEGEND_COLUMNS)), frameon=False, fontsize="small",
        title=axis_title(study, figure.series), title_fontsize="small",
    )  # fmt: skip
