"""The panels of a study's figures: lines, grouped bars, a heat map with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.figures.heat import color_bar, heat, plain_ticks
from hermes_sim.analysis.picture import DENSITY, MARKERS, PALETTE, PART_PATTERNS, line_style
from hermes_sim.explore.study.points import Points
from hermes_sim.explore.words import metric_named
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_figure import StudyFigure
from hermes_sim.scenario.study_metrics import StudyMetric
from hermes_sim.scenario.sweep import TIER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HATCHES: Final = tuple(PART_PATTERNS[part] * DENSITY for part in ("compute", "queue", "memory", "network", "transfer"))
"""Of bars side by side."""
LONGEST_NAMES: Final = 40
"""Letters along an axis; names that are longer together are written aslant."""


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """One panel: a metric of some points of a figure."""

    study: StudyFile
    figure: StudyFigure
    points: Points
    metric_name: str

    @property
    def metric(self) -> StudyMetric:
        return metric_named(self.metric_name)

    def names(self, axis: str) -> list[str]:
        return names_of(self.study, self.figure, axis)

    def series(self) -> Sequence[tuple[str, pd.Series]]:
        """Label and values by x, as drawn, of every line: means over all axes that the figure does not name."""
        frame, series = self.points.frame, self.figure.series
        if self.metric_name not in frame:
            return []
        drawn = []
        for name in [""] if series is None else self.names(series):
            own = frame if series is None else frame[frame[series] == name]
            means: pd.Series = own.groupby(self.figure.x, observed=True, sort=True)[self.metric_name].mean().dropna()
            means.index = means.index.astype("str")
            drawn.append((name, means / self.metric.per_unit))
        return drawn


def names_of(study: StudyFile, figure: StudyFigure, axis: str) -> list[str]:
    """Values of an axis that a figure shows, in their order."""
    names = [tier.name for tier in study.tiers] if axis == TIER else list(_axis(study, axis).names)
    return [name for name in names if name in figure.where.get(axis, names)]


def axis_title(study: StudyFile, axis: str) -> str:
    return TIER if axis == TIER else _axis(study, axis).title


def _axis(study: StudyFile, name: str) -> Axis:
    return next(axis for axis in study.axes if axis.name == name)


def lines(panel: Panel, axes: Axes, _: Sequence[Panel]) -> None:
    positions = _positions(panel)
    numeric = panel.figure.x != TIER and _axis(panel.study, panel.figure.x).numbers is not None
    for index, (label, values) in enumerate(panel.series()):
        kept = [name for name in positions if name in values.index]
        if not kept:
            continue
        axes.plot(
            [positions[name] for name in kept], [values[name] for name in kept], label=label,
            marker=MARKERS[index % len(MARKERS)], **line_style(index),
        )  # fmt: skip
    if "x" in panel.figure.log and numeric and min(positions.values()) > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
    ticks = [f"{number:,g}" for number in positions.values()] if numeric else [_shown(name) for name in positions]
    axes.set_xticks(list(positions.values()), ticks)
    _label(panel, axes)


def bars(panel: Panel, axes: Axes, _: Sequence[Panel]) -> None:
    names, series = panel.names(panel.figure.x), panel.series()
    width = 0.8 / max(1, len(series))
    for index, (label, values) in enumerate(series):
        at = np.arange(len(names)) - 0.4 + (index + 0.5) * width
        heights = np.array([values.get(name, np.nan) for name in names], dtype=float)
        color = PALETTE[index % len(PALETTE)]
        fill: dict[str, Any] = {"facecolor": color, "edgecolor": "white", "hatch": HATCHES[index % len(HATCHES)]}
        axes.bar(at, np.nan_to_num(heights), width * 0.92, label=label, **fill)
        for place in at[np.isnan(heights)]:
            at_bottom = axes.get_xaxis_transform()
            axes.text(place, 0.01, "none", transform=at_bottom, rotation=90, fontsize=6, ha="center")
    axes.set_xticks(range(len(names)), [_shown(name) for name in names])
    if sum(map(len, names)) > LONGEST_NAMES:
        for tick in axes.get_xticklabels():
            tick.set(rotation=20, horizontalalignment="right", rotation_mode="anchor")
    _label(panel, axes)


def heat_map(panel: Panel, axes: Axes, column: Sequence[Panel]) -> None:
    """One scale of colours for the panels of a column; the numbers stand in the cells."""
    names, series = panel.names(panel.figure.x), panel.series()
    values = np.array([[own.get(name, np.nan) for name in names] for _, own in series], dtype=float)
    known = np.concatenate([own.to_numpy(dtype=float) for other in column for _, own in other.series()])
    shown = [_shown(name) for name in names], [_shown(label) for label, _ in series]
    cells = heat(axes, values, *shown, known=known, log="y" in panel.figure.log)
    color_bar(cells, [axes], panel.metric.title)
    axes.set_xlabel(axis_title(panel.study, panel.figure.x))
    if panel.figure.series is not None:
        axes.set_ylabel(axis_title(panel.study, panel.figure.series))


Draw = Callable[[Panel, "Axes", Sequence[Panel]], None]

PANELS: Final[dict[str, Draw]] = {"lines": lines, "bars": bars, "heat_map": heat_map}
"""(panel, where it is drawn, all panels of its column)."""


def _positions(panel: Panel) -> dict[str, float]:
    names = panel.names(panel.figure.x)
    if panel.figure.x != TIER and _axis(panel.study, panel.figure.x).numbers is not None:
        numbers = {value.name: value.number for value in _axis(panel.study, panel.figure.x).values}
        return {name: number for name in names if (number := numbers[name]) is not None}
    return {name: float(index) for index, name in enumerate(names)}


def _label(panel: Panel, axes: Axes) -> None:
    if "y" in panel.figure.log:
        axes.set_yscale("log")
        plain_ticks(axes)
    else:
        axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel(axis_title(panel.study, panel.figure.x))
    axes.set_ylabel(panel.metric.title)


def _shown(name: str) -> str:
    return name.replace("_", " ")
