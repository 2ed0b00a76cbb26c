"""The picture of a search: all points that were tried and the front, a panel for each pair of objectives."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.picture import PALETTE, legend_below, picture, styled
from hermes_sim.explore.run_table import DONE
from hermes_sim.explore.search.record import STOPPED
from hermes_sim.explore.search.table import HALF_WIDTH
from hermes_sim.explore.words import metric_named
from hermes_sim.scenario.search import SearchFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_SIZE: Final = (4.2, 3.2)
"""Inches."""
MOST_ACROSS: Final = 3
LOG_FROM: Final = 20.0
"""An axis whose values lie over a larger factor is logarithmic."""
GREY: Final = "#8a8a8a"


@styled
def draw_front(search: SearchFile, trials: pd.DataFrame, front: pd.DataFrame) -> Figure:
    """A matplotlib figure. Of a single objective: what was measured, in the order of trials, and the best so far."""
    metrics = [one.metric for one in search.objectives]
    pairs: list[tuple[str, str]] = list(combinations(metrics, 2)) or [("trial", metrics[0])]
    across = min(len(pairs), MOST_ACROSS)
    down = -(-len(pairs) // across)
    drawn = picture(PANEL_SIZE[0] * across + 0.4, PANEL_SIZE[1] * down + 0.7)
    grid = drawn.subplots(down, across, squeeze=False).flat
    for axes, (x, y) in zip(grid, pairs, strict=False):
        _points(search, axes, trials, x, y)
        if x == "trial":
            _best_so_far(search, axes, trials, y)
        else:
            _front(search, axes, front, x, y)
        _label(axes, x, y)
    for axes in grid:
        axes.set_axis_off()
    legend_below(drawn, columns=2 * across)
    return drawn


def _points(search: SearchFile, axes: Any, trials: pd.DataFrame, x: str, y: str) -> None:
    """Whole runs filled, those outside the limits crossed, short ones hollow."""
    done, stopped = trials["status"] == DONE, trials["status"] == STOPPED
    kinds = [
        (stopped, "short runs", {"marker": "o", "facecolors": "none", "edgecolors": GREY, "linewidths": 0.6, "s": 12}),
        (done & ~(trials["excess"] > 0), "whole runs", {"marker": "o", "color": PALETTE[5], "s": 18}),
        (done & (trials["excess"] > 0), "outside the limits", {"marker": "x", "color": GREY, "s": 18, "linewidths": 1}),
    ]
    for kept, label, style in kinds:
        if kept.any():
            axes.scatter(_shown(trials[kept], x), _shown(trials[kept], y), label=label, **style)


def _front(search: SearchFile, axes: Any, front: pd.DataFrame, x: str, y: str) -> None:
    """Means over other seeds with their 95% intervals; the line joins them where it is a front of these two."""
    own = front[front["on_front"]].sort_values(x, kind="stable")
    if own.empty:
        return
    style = {"color": PALETTE[1], "linewidth": 1.2, "capsize": 2, "markersize": 5}
    bars = {
        f"{axis}err": np.nan_to_num(own[f"{metric}{HALF_WIDTH}"].to_numpy(float)) / metric_named(metric).per_unit
        for axis, metric in (("x", x), ("y", y))
    }
    line = "-" if len(search.objectives) == 2 else "none"
    axes.errorbar(_shown(own, x), _shown(own, y), fmt="s", linestyle=line, label="front, run again", **bars, **style)
    knee = own[own["is_knee"]]
    axes.scatter(
        _shown(knee, x), _shown(knee, y), marker="*", s=130, color=PALETTE[6], zorder=4, label="knee"
    )  # fmt: skip


def _best_so_far(search: SearchFile, axes: Any, trials: pd.DataFrame, y: str) -> None:
    within = trials[(trials["status"] == DONE) & ~(trials["excess"] > 0)]
    if within.empty:
        return
    sign = search.objectives[0].sign
    best = (sign * within[y]).cummin() * sign / metric_named(y).per_unit
    axes.step(within["trial"], best, where="post", color=PALETTE[1], linewidth=1.4, label="best so far")


def _shown(table: pd.DataFrame, name: str) -> Any:
    return table[name].to_numpy(float) / (1.0 if name == "trial" else metric_named(name).per_unit)


def _between_powers(value: float, _: int | None) -> str:
    return f"{value:,g}" if f"{value:e}"[0] in "25" else ""


def _label(axes: Any, x: str, y: str) -> None:
    from matplotlib.ticker import FuncFormatter

    for side, name in (("x", x), ("y", y)):
        axis = getattr(axes, f"{side}axis")
        low, high = (float(end) for end in axis.get_data_interval())
        if name != "trial" and low > 0 and high > LOG_FROM * low:
            getattr(axes, f"set_{side}scale")("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_formatter(FuncFormatter(_between_powers))
        else:
            axis.set_major_formatter("{x:,g}")
        axis.set_label_text("trial" if name == "trial" else metric_named(name).title)
