"""The tables of a search: a row for each point that was tried, a row for each point of the front with its means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from hermes_sim.explore.run_table import DONE, FIRST_COLUMNS
from hermes_sim.explore.search.ranking import front_of, knee_of
from hermes_sim.explore.search.record import REPEATED, Tried
from hermes_sim.explore.search.space import SearchSpace
from hermes_sim.explore.search.trial import excess_of, losses_of
from hermes_sim.scenario.axis import Axis
from hermes_sim.scenario.search import SearchFile

HALF_WIDTH: Final = "_half_width_95"
"""Behind a metric's name: of the 95% confidence interval of its mean."""

Row = Mapping[str, Any]


def trials_table(search: SearchFile, space: SearchSpace, tried: Iterable[Tried]) -> pd.DataFrame:
    """One row a point, whatever became of it, with the metrics of its last run.

    `requests_frac`: share of the requests of that run. `num_runs`: what it has cost, in runs with all requests. Points
    that a sampler proposed a second time are left out.
    """
    listed = [one for one in tried if one.status != REPEATED]
    points = [space.point(one.parameters) for one in listed]
    lasts: list[Row] = [one.rows[-1] if one.rows else {} for one in listed]
    rungs = search.rungs
    columns: dict[str, Any] = {"trial": [one.number for one in listed]}
    columns |= axis_columns(search.axes, points)
    columns["status"] = pd.Categorical([one.status for one in listed])
    columns["reason"] = [one.reason for one in listed]
    columns["requests_frac"] = [rungs[len(one.rows) - 1] if one.rows else 0.0 for one in listed]
    columns["num_runs"] = [sum(rungs[: len(one.rows)]) for one in listed]
    columns["scenario"] = [str(last.get("scenario", "")) for last in lasts]
    columns["wall_time_s"] = [sum(float(row["wall_time_s"]) for row in one.rows) for one in listed]
    columns["excess"] = [excess_of(search, last) if last else math.nan for last in lasts]
    for metric in metrics_of(search, lasts):
        columns[metric] = [float(last.get(metric, math.nan)) for last in lasts]
    return pd.DataFrame(columns)


def axis_columns(axes: Sequence[Axis], points: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Numbers as numbers, NaN where a point does not have the axis; other values as ordered categories."""
    columns: dict[str, Any] = {}
    for axis in axes:
        names = [point.get(axis.name) for point in points]
        if axis.is_numeric:
            numbers = [None if name is None else axis.number_named(name) for name in names]
            columns[axis.name] = [math.nan if number is None else number for number in numbers]
        else:
            columns[axis.name] = pd.Categorical(names, categories=list(axis.names), ordered=True)
    return columns


def metrics_of(search: SearchFile, rows: Iterable[Row]) -> list[str]:
    """Names of all metrics in rows of runs."""
    known = {"trial", *FIRST_COLUMNS, *(axis.name for axis in search.axes)}
    return sorted({name for row in rows for name in row} - known)


def front_table(
    search: SearchFile, space: SearchSpace, finalists: Sequence[Tried], rows: Sequence[Sequence[Row]]
) -> pd.DataFrame:
    """One row a finalist: means over the seeds under which it was run again, with their half-widths.

    rows: for each finalist those of its runs. `on_front`: whether by these means it keeps the limits and none of the
    others is ahead of it. `is_knee`: the one of them to begin with.
    """
    done = [[row for row in own if row["status"] == DONE] for own in rows]
    metrics = metrics_of(search, (row for own in done for row in own))
    means = [{metric: _mean(own, metric) for metric in metrics} for own in done]
    columns: dict[str, Any] = {"trial": [one.number for one in finalists]}
    columns |= axis_columns(search.axes, [space.point(one.parameters) for one in finalists])
    columns["num_seeds"] = [len(own) for own in done]
    losses = np.array([losses_of(search, row) for row in means]).reshape(len(means), len(search.objectives))
    excess = np.array([excess_of(search, row) for row in means], dtype=float)
    front = front_of(losses, excess)
    on_front = np.isin(np.arange(len(finalists)), front)
    columns["on_front"] = on_front
    columns["is_knee"] = False
    columns["excess"] = excess
    for metric in metrics:
        columns[metric] = [row[metric] for row in means]
        columns[f"{metric}{HALF_WIDTH}"] = [half_width([row.get(metric, math.nan) for row in own]) for own in done]
    table = pd.DataFrame(columns)
    if len(front):
        table.loc[front[knee_of(losses[front])], "is_knee"] = True
    order = np.lexsort([*losses.T[::-1], excess, ~on_front])
    return table.iloc[order].reset_index(drop=True)


def _mean(rows: Sequence[Row], metric: str) -> float:
    return float(np.mean([row.get(metric, math.nan) for row in rows])) if rows else math.nan


def half_width(values: Sequence[float]) -> float:
    """Of the 95% interval of the mean of independent runs (Student's t); NaN of fewer than two."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return math.nan
    spread = 0.0 if min(values) == max(values) else float(np.std(values, ddof=1))
    return float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
