"""The figures of a study: lines, bars or a heat map, a panel for each metric and facet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.human import digits
from hermes_sim.explore.points import Points, points_of
from hermes_sim.explore.words import metric_named
from hermes_sim.scenario.study import TIER, StudyFile
from hermes_sim.scenario.study_figure import StudyFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Told apart by all readers (Okabe and Ito, Color Universal Design)."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
LINE_STYLES: Final = ("-", "--", "-.", ":")
"""So that a line is seen beneath another."""
COLOR_MAP: Final = "cividis"
PANEL_SIZE: Final = (3.4, 2.7)
DPI: Final = 150
FORMATS: Final = ("pdf", "png", "svg")
FIXED_METADATA: Final[dict[str, dict[str, Any]]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}
"""Equal runs give equal files."""


def draw(study: StudyFile, figure: StudyFigure, runs: pd.DataFrame) -> Figure:
    """A matplotlib figure of a table of runs (explore/run_table.py)."""
    from matplotlib.figure import Figure

    named = [figure.x, *figure.where, *(axis for axis in (figure.series, figure.facets) if axis is not None)]
    points = points_of(study, runs, figure.table, tiers=TIER in named).at(figure.where)
    facets: list[str | None] = [None] if figure.facets is None else [*_names(study, figure, figure.facets)]
    size = (PANEL_SIZE[0] * len(figure.y) + 0.6, PANEL_SIZE[1] * len(facets) + 0.9)
    drawn = Figure(figsize=size, layout="constrained", dpi=DPI)
    grid = drawn.subplots(len(facets), len(figure.y), squeeze=False)
    for row, facet in enumerate(facets):
        here = points if facet is None or figure.facets is None else points.at({figure.facets: (facet,)})
        for column, metric in enumerate(figure.y):
            axes = grid[row, column]
            _PANELS[figure.kind](study, figure, here, metric, axes)
            if facet is not None:
                axes.set_title(f"{str(figure.facets).replace('_', ' ')}: {facet}", fontsize="small")
            axes.tick_params(which="both", labelsize="small")
    _legend(study, figure, drawn, grid)
    return drawn


def save_figure(drawn: Figure, path: Path) -> None:
    """By its suffix PDF, PNG or SVG; text stays text. Raises OSError."""
    import matplotlib as mpl

    kind = path.suffix.removeprefix(".")
    with mpl.rc_context({"svg.hashsalt": "hermes-sim", "svg.fonttype": "none", "pdf.fonttype": 42}):
        drawn.savefig(path, format=kind, metadata=FIXED_METADATA[kind])


def _lines(study: StudyFile, figure: StudyFigure, points: Points, metric: str, axes: Axes) -> None:
    unit = metric_named(metric).per_unit
    positions = _positions(study, figure, figure.x)
    names = list(positions)
    for index, (label, frame) in enumerate(_series(study, figure, points, metric)):
        kept = [name for name in names if name in frame.index]
        at = [positions[name] for name in kept]
        values = [frame[name] / unit for name in kept]
        color, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        style = LINE_STYLES[index % len(LINE_STYLES)]
        axes.plot(at, values, color=color, marker=marker, markersize=4, linestyle=style, linewidth=1.4, label=label)
    numbers = _is_numeric(study, figure.x)
    if "x" in figure.log and numbers and min(positions.values()) > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(list(positions.values()), [_short(name) for name in names] if not numbers else _ticks(positions))
    _label(study, figure, metric, axes)


def _bars(study: StudyFile, figure: StudyFigure, points: Points, metric: str, axes: Axes) -> None:
    unit = metric_named(metric).per_unit
    names = _names(study, figure, figure.x)
    series = list(_series(study, figure, points, metric))
    width = 0.8 / max(1, len(series))
    for index, (label, frame) in enumerate(series):
        at = np.arange(len(names)) - 0.4 + (index + 0.5) * width
        heights = np.array([frame.get(name, np.nan) / unit for name in names], dtype=float)
        axes.bar(at, np.nan_to_num(heights), width * 0.92, color=PALETTE[index % len(PALETTE)], label=label)
        for place, height in zip(at, heights, strict=True):
            if np.isnan(height):
                axes.annotate("none", (place, 0), rotation=90, fontsize="x-small", ha="center", va="bottom")
    axes.set_xticks(range(len(names)), [_short(name) for name in names])
    if max(map(len, names), default=0) * len(names) > 40:
        axes.tick_params(axis="x", rotation=20)
    _label(study, figure, metric, axes)


def _heat_map(study: StudyFile, figure: StudyFigure, points: Points, metric: str, axes: Axes) -> None:
    from matplotlib.colors import LogNorm

    described = metric_named(metric)
    columns, series = _names(study, figure, figure.x), list(_series(study, figure, points, metric))
    values = np.array([[frame.get(name, np.nan) / described.per_unit for name in columns] for _, frame in series])
    known = values[np.isfinite(values)]
    norm = LogNorm() if "y" in figure.log and len(known) and known.min() > 0 else None
    picture = axes.imshow(values, cmap=COLOR_MAP, norm=norm, aspect="auto", origin="lower")
    dark = np.ma.filled(np.ma.asarray(picture.norm(np.ma.masked_invalid(values))) < 0.5, False)
    for row, column in np.ndindex(*values.shape):
        value = float(values[row, column])
        color = "white" if np.isfinite(value) and dark[row, column] else "black"
        axes.annotate(digits(value, 2), (column, row), color=color, fontsize="x-small", ha="center", va="center")
    axes.set_xticks(range(len(columns)), [_short(name) for name in columns])
    axes.set_yticks(range(len(series)), [label for label, _ in series])
    axes.set_xlabel(_title(study, figure.x), fontsize="small")
    if figure.series is not None:
        axes.set_ylabel(_title(study, figure.series), fontsize="small")
    bar = axes.figure.colorbar(picture, ax=axes)
    bar.set_label(described.title, fontsize="small")
    bar.ax.tick_params(labelsize="x-small")


_PANELS: Final = {"lines": _lines, "bars": _bars, "heat_map": _heat_map}


def _series(study: StudyFile, figure: StudyFigure, points: Points, metric: str) -> Sequence[tuple[str, pd.Series]]:
    """Label and values by x of every line: means over all axes that the figure does not name."""
    frame = points.frame
    if metric not in frame:
        return []
    names = [""] if figure.series is None else _names(study, figure, figure.series)
    drawn = []
    for name in names:
        own = frame if figure.series is None else frame[frame[figure.series] == name]
        if len(own) or figure.kind != "lines":
            means: pd.Series = own.groupby(figure.x, observed=True, sort=True)[metric].mean().dropna()
            means.index = means.index.astype("str")
            drawn.append((name, means))
    return drawn


def _legend(study: StudyFile, figure: StudyFigure, drawn: Figure, grid: Any) -> None:
    if figure.series is None or figure.kind == "heat_map":
        return
    pairs = (pair for axes in grid.flat for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    found = {label: handle for handle, label in pairs}
    names = [name for name in _names(study, figure, figure.series) if name in found]
    drawn.legend(
        [found[name] for name in names], names, loc="outside lower center", ncols=min(len(names), 4),
        frameon=False, fontsize="small", title=_title(study, figure.series), title_fontsize="small",
    )  # fmt: skip


def _label(study: StudyFile, figure: StudyFigure, metric: str, axes: Axes) -> None:
    if "y" in figure.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0.0)
    axes.set_xlabel(_title(study, figure.x), fontsize="small")
    axes.set_ylabel(metric_named(metric).title, fontsize="small")
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)


def _names(study: StudyFile, figure: StudyFigure, axis: str) -> list[str]:
    """Values of an axis that the figure shows, in their order."""
    if axis == TIER:
        names = [tier.name for tier in study.tiers]
    else:
        names = list(next(one for one in study.axes if one.name == axis).names)
    return [name for name in names if name in figure.where.get(axis, names)]


def _title(study: StudyFile, axis: str) -> str:
    return TIER if axis == TIER else next(one for one in study.axes if one.name == axis).title


def _is_numeric(study: StudyFile, axis: str) -> bool:
    return axis != TIER and next(one for one in study.axes if one.name == axis).numbers is not None


def _positions(study: StudyFile, figure: StudyFigure, axis: str) -> dict[str, float]:
    names = _names(study, figure, axis)
    if not _is_numeric(study, axis):
        return {name: float(index) for index, name in enumerate(names)}
    values = next(one for one in study.axes if one.name == axis).values
    numbers = {value.name: value.number for value in values}
    return {name: number for name in names if (number := numbers[name]) is not None}


def _ticks(positions: dict[str, float]) -> list[str]:
    return [f"{number:,g}" for number in positions.values()]


def _short(name: str) -> str:
    return name.replace("_", " ")
