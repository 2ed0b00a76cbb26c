"""Figures of a run, fit for a paper or a notebook; drawn from the tables, so that a saved run can be redrawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.analysis.frames import FloatArray, floats, is_finished
from hermes_sim.analysis.human import as_written
from hermes_sim.analysis.metrics import RESOURCES, stage_times
from hermes_sim.analysis.objectives import Objective
from hermes_sim.analysis.picture import COLORS, panels
from hermes_sim.analysis.plot_engines import engine_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

TITLES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E"}
NUM_SLICES = 400
SHORTEST_RUN_S = 1e-9
FARTHEST_LIMIT = 1.5
"""A limit farther out than so many times the slowest request is named, not drawn."""


class Plots:
    """One method per picture. Each returns a new matplotlib Figure, which a notebook shows and `savefig` writes."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def ttft(self) -> Figure:
        """Cumulative distribution of TTFT over the measured requests, with the SLO's lines."""
        return self.latency("ttft")

    def tpot(self) -> Figure:
        """Cumulative distribution of TPOT over the measured requests, with the SLO's lines."""
        return self.latency("tpot")

    def e2e(self) -> Figure:
        """Cumulative distribution of E2E over the measured requests, with the SLO's lines."""
        return self.latency("e2e")

    def latency(self, *names: str) -> Figure:
        """Cumulative distributions side by side: ttft, tpot and e2e, or those named."""
        names = names or tuple(TITLES)
        unknown = sorted(set(names) - set(TITLES))
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a latency of requests ({', '.join(TITLES)})")
        figure, axes_of = panels(len(names))
        requests = self._results.measured_requests
        requests = requests[is_finished(requests)]
        for axes, name in zip(axes_of, names, strict=True):
            values_s = floats(requests, f"{name}_s")
            values_s = values_s[~np.isnan(values_s)]
            _cumulative(axes, values_s)
            objectives = [line for line in self._results.objectives if line.latency == name]
            _objective_lines(axes, objectives, float(values_s.max(initial=0.0)))
            axes.set_xlabel(f"{TITLES[name]} (s)")
        axes_of[0].set_ylabel("share of requests")
        return figure

    def timeline(self) -> Figure:
        """Requests waiting and in service over simulated time, one panel per stage; the measured window is marked.

        Each step of the curves is the mean over one of NUM_SLICES equal parts of the run.
        """
        results = self._results
        stages = [str(stage) for stage in results.visits["stage"].cat.categories]
        figure, axes_of = panels(max(1, len(stages)), vertical=True)
        edges_s = np.linspace(0.0, max(results.duration_s, SHORTEST_RUN_S), NUM_SLICES + 1)
        for axes, stage in zip(axes_of, stages, strict=False):
            visits = results.visits[results.visits["stage"] == stage]
            joined, started, left = (
                _mean_num_passed(floats(visits, column), edges_s) for column in ("arrival_s", "start_s", "finish_s")
            )
            axes.stairs(joined - left, edges_s, fill=True, color=COLORS["queue"], label="waiting")
            axes.stairs(started - left, edges_s, fill=True, color=COLORS["compute"], label="in service")
            axes.set_ylim(bottom=0.0)
            if not results.window.whole_run:
                for limit_s in (results.window.start_s, results.window.end_s):
                    axes.axvline(limit_s, color="black", linewidth=0.8, linestyle=":")
            axes.set_ylabel(stage)
        if stages:
            axes_of[0].legend(loc="upper right", fontsize="small", framealpha=0.8)
        axes_of[-1].set_xlabel("simulated time (s)")
        return figure

    def engine_timeline(self) -> Figure:
        """Utilization, MFU, batch, KV use and line of every engine over simulated time, a line per engine."""
        return engine_timeline(self._results)

    def stages(self) -> Figure:
        """Mean time per visit by stage: transfer, queue, and service by limiting resource."""
        times = stage_times(self._results.measured_visits)
        figure, (axes,) = panels(1)
        names = [str(name) for name in times.index]
        end_s: FloatArray = np.zeros(len(times))
        for part in ("transfer", "queue", *RESOURCES):
            values_s = floats(times, f"{part}_s")
            axes.barh(names, values_s, left=end_s, color=COLORS[part], label=part)
            end_s = end_s + values_s
        axes.invert_yaxis()
        axes.set_xlabel("mean time per visit (s)")
        axes.legend(fontsize="small", frameon=False)
        return figure

    def engines(self) -> Figure:
        """Share of the run that each engine was busy, by limiting resource."""
        engines = self._results.engines
        figure, (axes,) = panels(1)
        names = [str(name) for name in engines["engine"]]
        busy = np.sum([floats(engines, f"{resource}_s") for resource in RESOURCES], axis=0)
        end: FloatArray = np.zeros(len(engines))
        for resource in RESOURCES:
            part_s = floats(engines, f"{resource}_s")
            share = np.divide(part_s, busy, out=np.zeros_like(part_s), where=busy > 0)
            share = share * floats(engines, "utilization_frac")
            axes.barh(names, share, left=end, color=COLORS[resource], label=resource)
            end = end + share
        axes.invert_yaxis()
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("share of the run")
        axes.legend(fontsize="small", frameon=False)
        return figure


def _cumulative(axes: Axes, values: FloatArray) -> None:
    if len(values):
        axes.ecdf(values, color=COLORS["compute"])
    axes.set_ylim(0.0, 1.02)
    axes.grid(alpha=0.3)


def _objective_lines(axes: Axes, objectives: Sequence[Objective], slowest_s: float) -> None:
    """Limits in seconds; a multiple of the unloaded request has no single place on the axis."""
    limits = [objective for objective in objectives if not objective.is_multiple]
    farthest_s = slowest_s
    for objective, style in zip(limits, cycle(("--", ":", "-.")), strict=False):
        label = f"{objective.statistic} <= {as_written(objective.bound)}"
        if objective.bound <= FARTHEST_LIMIT * slowest_s:
            axes.axvline(objective.bound, color=COLORS["host"], linestyle=style, linewidth=1.0, label=label)
            farthest_s = max(farthest_s, objective.bound)
        else:
            axes.plot([], [], color=COLORS["host"], linestyle=style, linewidth=1.0, label=f"{label} (beyond)")
    axes.set_xlim(0.0, 1.05 * farthest_s if farthest_s > 0 else 1.0)
    if limits:
        axes.legend(fontsize="small", frameon=False, loc="lower right")


def _mean_num_passed(moments_s: FloatArray, edges_s: FloatArray) -> FloatArray:
    """[num_slices] mean over each slice of the number of moments that have passed."""
    known_s = np.sort(moments_s[np.isfinite(moments_s)])
    num_passed = np.searchsorted(known_s, edges_s, side="right")
    sums_s = np.concatenate([[0.0], np.cumsum(known_s)])
    areas_s = num_passed * edges_s - sums_s[num_passed]
    means: FloatArray = np.diff(areas_s) / np.diff(edges_s)
    return means
