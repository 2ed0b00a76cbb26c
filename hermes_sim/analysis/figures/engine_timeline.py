"""What every engine did over time: a panel per quantity, a line per engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hermes_sim.analysis.engine_lines import engine_lines
from hermes_sim.analysis.figures.window import mark_window
from hermes_sim.analysis.picture import Width, legend_below, line_style, panels, styled, width_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

QUANTITIES: Final = {
    "utilization_frac": "utilization",
    "mfu_frac": "MFU",
    "mean_batch": "batch",
    "mean_kv_used_frac": "KV used",
    "num_waiting": "waiting",
}
HEIGHT_IN: Final = 0.95


@styled
def engine_timeline(results: Results, *, width: Width = "page") -> Figure:
    """Utilization, MFU, batch, KV use and line of every engine over simulated time; the measured window is marked.

    Of many engines, a line is the mean of all replicas of one.
    """
    figure, axes_of = panels(width, HEIGHT_IN, rows=len(QUANTITIES))
    for place, engine in enumerate(engine_lines(results.timeline)):
        for axes, column in zip(axes_of, QUANTITIES, strict=True):
            axes.stairs(engine.mean(column), engine.edges_s, label=engine.label, baseline=None, **line_style(place))
    for axes, title in zip(axes_of, QUANTITIES.values(), strict=True):
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0.0)
        axes.set_xlim(0.0, max(results.duration_s, axes.get_xlim()[0] + 1e-9))
        mark_window(axes, results)
    axes_of[-1].set_xlabel("simulated time (s)")
    figure.align_ylabels()
    legend_below(figure, columns=5 if width_in(width) > 5 else 3)
    return figure
