"""Figures of a table of runs in one line: `found.plot.pareto()`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hermes_sim.explore import run_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.analysis.picture import Width


class TablePlots:
    """One method per picture, as `results.plot` has for one run; explore/run_figures.py says what each shows."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self._runs = runs

    def pareto(
        self,
        x: str = "cost_per_million_output_tokens_usd",
        y: str = "ttft_p99_s",
        *,
        series: str | None = None,
        log: Sequence[str] | None = None,
        width: Width = "column",
    ) -> Figure:
        """Two metrics of every point, and the line of those that no other beats in both."""
        return run_figures.pareto(self._runs, x, y, series=series, log=log, width=width)

    def heat_map(
        self,
        metric: str | None = None,
        *,
        columns: str | None = None,
        rows: str | None = None,
        log: bool = False,
        width: Width = "column",
    ) -> Figure:
        """A metric over two axes, the mean over all others."""
        return run_figures.heat_map(self._runs, metric, columns=columns, rows=rows, log=log, width=width)

    def slo_surface(
        self,
        rate: str | None = None,
        *,
        metric: str | None = None,
        target: float = run_figures.TARGET,
        width: Width = "column",
    ) -> Figure:
        """Share of requests within the SLO over rate and configuration, with the line inside which `target` is kept."""
        return run_figures.slo_surface(self._runs, rate, metric=metric, target=target, width=width)
