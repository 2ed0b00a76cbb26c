"""The measured part of a run on an axis of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hermes_sim.analysis.results import Results


def mark_window(axes: Axes, results: Results) -> None:
    """Lines at its ends, where something was cut off."""
    if not results.window.whole_run:
        for place, limit_s in enumerate((results.window.start_s, results.window.end_s)):
            label = None if place else "measured window"
            axes.axvline(limit_s, color="black", linewidth=0.8, linestyle=":", label=label)
