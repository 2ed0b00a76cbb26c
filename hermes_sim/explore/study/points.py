"""The numbers that figures and findings read: means over the seeds, a row for each point and tier, the best points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hermes_sim.explore.run_table import DONE, FIRST_COLUMNS
from hermes_sim.scenario.study import StudyFile
from hermes_sim.scenario.study_finding import Table
from hermes_sim.scenario.study_metrics import metric_of
from hermes_sim.scenario.sweep import TIER

MEETS = "meets"
TIER_METRICS = ("slo_met_frac", "goodput_per_s", MEETS)


@dataclass(frozen=True, eq=False, slots=True)
class Points:
    """One row a point. All but the axes are numbers; `axes` are ordered categories."""

    frame: pd.DataFrame
    axes: tuple[str, ...]

    def at(self, where: Mapping[str, Sequence[str]]) -> Points:
        """Only the points with these values."""
        frame = self.frame
        for axis, names in where.items():
            frame = frame[frame[axis].isin(list(names))]
        return Points(frame, self.axes)

    def values(self, axis: str) -> list[str]:
        """Those that are there, in the order of the axis."""
        there = set(self.frame[axis])
        return [str(value) for value in self.frame[axis].cat.categories if value in there]


def points_of(study: StudyFile, runs: pd.DataFrame, table: Table, *, tiers: bool) -> Points:
    """The points of a table of runs (explore/run_table.py). tiers: a row for every tier, with that tier's metrics."""
    axes = tuple(axis.name for axis in study.axes)
    points = mean_over_seeds(runs[runs["status"] == DONE], axes)
    if study.tiers and (tiers or table == "best"):
        points = _per_tier(points, [tier.name for tier in study.tiers])
    return points if table == "runs" else _best(study, points)


def at_the_end(study: StudyFile, runs: pd.DataFrame) -> tuple[int, int]:
    """Of the best points, how many lie at the largest value that was run along an axis of numbers, and how many there
    are: past the end of that axis there may be better ones."""
    if study.best is None:
        return 0, 0
    best = points_of(study, runs, "best", tiers=True).frame
    kept = [axis.name for axis in study.axes if axis.name not in study.best.over]
    done = runs[runs["status"] == DONE]
    ends = pd.Series(False, index=best.index)
    for axis in study.axes:
        if axis.name not in study.best.over or axis.numbers is None:
            continue
        numbers = dict(zip(axis.names, axis.numbers, strict=True))
        tried = done.assign(number=done[axis.name].astype("str").map(numbers))
        last = tried.groupby(kept, observed=True)["number"].max() if kept else tried["number"].max()
        here = best[axis.name].astype("str").map(numbers)
        there = last.loc[pd.MultiIndex.from_frame(best[kept]) if len(kept) > 1 else best[kept[0]]] if kept else last
        ends |= here.to_numpy() == (there.to_numpy() if kept else there)
    return int(ends.sum()), len(best)


def mean_over_seeds(runs: pd.DataFrame, axes: tuple[str, ...]) -> Points:
    """A row a point; a metric that some seed does not have is NaN. meets@TIER: 1 only where every seed meets it."""
    metrics = [name for name in runs.columns if name not in axes and name not in FIRST_COLUMNS]
    grouped = runs.groupby(list(axes), observed=True, sort=True, dropna=False)
    means = grouped[metrics].mean()
    judged = [name for name in metrics if name.startswith(f"{MEETS}@")]
    means[judged] = grouped[judged].min()
    means = means.where(grouped[metrics].count().eq(grouped.size(), axis=0))
    return Points(means.reset_index(), axes)


def _per_tier(points: Points, tiers: Sequence[str]) -> Points:
    frames = []
    for tier in tiers:
        own = {f"{metric}@{tier}": metric for metric in TIER_METRICS}
        others = [name for name in points.frame.columns if "@" in name and name not in own]
        frame = points.frame.drop(columns=[*others, *(name for name in TIER_METRICS if name in points.frame)])
        frame = frame.rename(columns=own)
        column = pd.Categorical([tier] * len(frame), categories=list(tiers), ordered=True)
        frames.append(frame.assign(**{TIER: column}))
    return Points(pd.concat(frames, ignore_index=True), (*points.axes, TIER))


def _best(study: StudyFile, points: Points) -> Points:
    """For every value of the other axes the best row along some, of those that meet the tier."""
    assert study.best is not None
    metric = metric_of(study.best.by)
    assert metric is not None
    kept = tuple(axis for axis in points.axes if axis not in study.best.over)
    frame = points.frame[points.frame[study.best.by].notna()]
    if study.tiers:
        frame = frame[frame[MEETS] == 1.0]
    frame = frame.sort_values(study.best.by, ascending=metric.better == "lower", kind="stable")
    if kept:
        frame = frame.drop_duplicates(list(kept))
    else:
        frame = frame.head(1)
    return Points(frame.sort_values(list(kept), kind="stable").reset_index(drop=True), kept)
