"""Requests waiting and in service over simulated time, by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hermes_sim.analysis.figures.window import mark_window
from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.picture import Width, legend_below, panels, part_style, styled, width_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

SLICES_PER_IN: Final = 30
SHORTEST_RUN_S: Final = 1e-9
HEIGHT_IN: Final = 0.95


@styled
def timeline(results: Results, *, width: Width = "page") -> Figure:
    """A panel per stage, waiting stacked on in service; the measured window is marked.

    Each step of the curves is the mean over one of SLICES_PER_IN equal parts of the run for every inch.
    """
    stages = [str(stage) for stage in results.visits["stage"].cat.categories]
    figure, axes_of = panels(width, HEIGHT_IN, rows=max(1, len(stages)))
    edges_s = np.linspace(0.0, max(results.duration_s, SHORTEST_RUN_S), round(SLICES_PER_IN * width_in(width)) + 1)
    for axes, stage in zip(axes_of, stages, strict=False):
        visits = results.visits[results.visits["stage"] == stage]
        joined, started, left = (
            _mean_num_passed(floats(visits, column), edges_s) for column in ("arrival_s", "start_s", "finish_s")
        )
        axes.stairs(joined - left, edges_s, fill=True, label="waiting", **part_style("queue"))
        axes.stairs(started - left, edges_s, fill=True, label="in service", **part_style("compute"))
        axes.set_ylim(bottom=0.0)
        axes.set_xlim(edges_s[0], edges_s[-1])
        mark_window(axes, results)
        axes.set_ylabel(stage)
    axes_of[-1].set_xlabel("simulated time (s)")
    figure.align_ylabels()
    legend_below(figure, columns=3)
    return figure


def _mean_num_passed(moments_s: FloatArray, edges_s: FloatArray) -> FloatArray:
    """[num_slices] mean over each slice of the number of moments that have passed."""
    known_s = np.sort(moments_s[np.isfinite(moments_s)])
    num_passed = np.searchsorted(known_s, edges_s, side="right")
    sums_s = np.concatenate([[0.0], np.cumsum(known_s)])
    areas_s = num_passed * edges_s - sums_s[num_passed]
    means: FloatArray = np.diff(areas_s) / np.diff(edges_s)
    return means
