"""Where time goes: stacked bars by stage, and by engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.human import TIME_UNITS, time_unit
from hermes_sim.analysis.metrics import RESOURCES, stage_times
from hermes_sim.analysis.picture import Width, legend_below, part_style, picture, styled, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

PARTS: Final = ("transfer", "queue", "preempted", *RESOURCES)
ROW_IN: Final = 0.24
AROUND_IN: Final = 0.85
"""Axis and legend."""
MOST_BARS: Final = 24


@styled
def stages(results: Results, *, width: Width = "column") -> Figure:
    """Mean time per visit by stage: transfer, queue, preempted, and service by limiting resource."""
    times = stage_times(results.measured_visits)
    parts_s = {part: floats(times, f"{part}_s") for part in PARTS}
    total_s = np.sum(list(parts_s.values()), axis=0)
    unit = time_unit([float(total_s.max(initial=0.0))])
    scaled = {part: values_s / TIME_UNITS[unit] for part, values_s in parts_s.items() if values_s.any()}
    return _bars(width, [str(name) for name in times.index], scaled, f"mean time per visit ({unit})")


@styled
def engines(results: Results, *, width: Width = "column") -> Figure:
    """Share of the run that each engine was busy, by limiting resource; of many, the busiest."""
    table = results.engines
    table = table.sort_values("utilization_frac", ascending=False, kind="stable").head(MOST_BARS).sort_index()
    parts_s = {resource: floats(table, f"{resource}_s") for resource in RESOURCES}
    busy_s = np.sum(list(parts_s.values()), axis=0)
    share = np.divide(floats(table, "utilization_frac"), busy_s, out=np.zeros(len(table)), where=busy_s > 0)
    shares = {resource: values_s * share for resource, values_s in parts_s.items() if values_s.any()}
    figure = _bars(width, [str(name) for name in table["engine"]], shares, "share of the run")
    figure.axes[0].set_xlim(0.0, 1.0)
    return figure


def _bars(width: Width, rows: Sequence[str], parts: Mapping[str, FloatArray], title: str) -> Figure:
    """A bar a row, from top to bottom; its parts from left to right."""
    figure = picture(width, AROUND_IN + ROW_IN * max(1, len(rows)))
    axes: Axes = figure.subplots()
    end: FloatArray = np.zeros(len(rows))
    for part, values in parts.items():
        axes.barh(list(rows), values, left=end, height=0.7, label=part, **part_style(part))
        end = end + values
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0.0)
    axes.set_xlabel(title)
    legend_below(figure, columns=7 if width_in(width) > 5 else 4)
    return figure
