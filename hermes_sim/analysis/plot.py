"""Figures of a run in one line: `results.plot.cdf()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_sim.analysis import figures
from hermes_sim.analysis.picture import Width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results


class Plots:
    """One method per picture. Each returns a new matplotlib Figure, which a notebook shows and `savefig` writes.

    width: `column` (3.33 in) or `page` (7 in), or inches. Drawn from the tables, so that a saved run can be redrawn.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def cdf(self, *latencies: str, width: Width = "page", log: bool = False, **others: Results) -> Figure:
        """Cumulative distributions with the SLO's lines: ttft, tpot and e2e, or those named.

        others: runs to compare with, by name, a curve for each: `results.plot.cdf("ttft", doubled=other)`.
        """
        runs = {"this run": self._results, **others} if others else self._results
        return figures.cdf(runs, *latencies, width=width, log=log)

    def ttft(self, *, width: Width = "column") -> Figure:
        """Cumulative distribution of TTFT over the measured requests, with the SLO's lines."""
        return self.cdf("ttft", width=width)

    def tpot(self, *, width: Width = "column") -> Figure:
        """Cumulative distribution of TPOT over the measured requests, with the SLO's lines."""
        return self.cdf("tpot", width=width)

    def e2e(self, *, width: Width = "column") -> Figure:
        """Cumulative distribution of E2E over the measured requests, with the SLO's lines."""
        return self.cdf("e2e", width=width)

    def timeline(self, *, width: Width = "page") -> Figure:
        """Requests waiting and in service over simulated time, one panel per stage; the measured window is marked."""
        return figures.timeline(self._results, width=width)

    def engine_timeline(self, *, width: Width = "page") -> Figure:
        """Utilization, MFU, batch, KV use and line of every engine over simulated time, a line per engine."""
        return figures.engine_timeline(self._results, width=width)

    def stages(self, *, width: Width = "column") -> Figure:
        """Mean time per visit by stage: transfer, queue, preempted, and service by limiting resource."""
        return figures.stages(self._results, width=width)

    def engines(self, *, width: Width = "column") -> Figure:
        """Share of the run that each engine was busy, by limiting resource."""
        return figures.engines(self._results, width=width)

    def roofline(self, engine: str | None = None, *, width: Width = "column") -> Figure:
        """What the operators of an engine's mean steps reached of its devices' peaks; the first engine if not named."""
        return figures.roofline(self._results, engine, width=width)
