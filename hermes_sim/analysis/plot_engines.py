"""What every engine did over time: a panel per quantity, a line per engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.picture import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

QUANTITIES = {
    "utilization_frac": "utilization",
    "mfu_frac": "MFU",
    "mean_batch": "batch",
    "mean_kv_used_frac": "KV used",
    "num_waiting": "waiting",
}
MOST_NAMED = 8
"""More engines than that are drawn thinner and not named one by one."""


def engine_timeline(results: Results) -> Figure:
    """Utilization, MFU, batch, KV use and line of every engine over simulated time; the measured window is marked."""
    timeline = results.timeline
    engines = [str(name) for name in timeline["engine"].cat.categories]
    figure, axes_of = panels(len(QUANTITIES), vertical=True)
    few = len(engines) <= MOST_NAMED
    for name in engines:
        rows = timeline[timeline["engine"] == name]
        edges_s = np.append(floats(rows, "start_s"), floats(rows, "end_s")[-1:])
        for axes, column in zip(axes_of, QUANTITIES, strict=True):
            axes.stairs(floats(rows, column), edges_s, label=name, linewidth=1.2 if few else 0.5, baseline=None)
    for axes, title in zip(axes_of, QUANTITIES.values(), strict=True):
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
        if not results.window.whole_run:
            for limit_s in (results.window.start_s, results.window.end_s):
                axes.axvline(limit_s, color="black", linewidth=0.8, linestyle=":")
    if engines and few:
        axes_of[0].legend(loc="upper right", fontsize="small", framealpha=0.8, ncols=min(len(engines), 4))
    axes_of[-1].set_xlabel("simulated time (s)")
    return figure
