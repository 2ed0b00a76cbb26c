"""A search in words of at most 80 columns: what was tried, the front with its means, what failed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Final

import pandas as pd

from hermes_sim.analysis.human import digits
from hermes_sim.explore.run_table import DONE, FAILED
from hermes_sim.explore.search.record import INFEASIBLE, STOPPED
from hermes_sim.explore.search.results import SearchResults
from hermes_sim.explore.search.table import HALF_WIDTH
from hermes_sim.explore.words import counted, metric_named, value_words
from hermes_sim.scenario.search import SearchFile

WIDTH: Final = 80
LEAST_POINT: Final = 24
"""Columns of a point beside its metrics; narrower, it stands below them."""
MOST_REASONS: Final = 3
_NUMBER = re.compile(r"[0-9.,]+")
"""Reasons that differ in numbers alone are told once."""


def result_lines(results: SearchResults) -> list[str]:
    """The answer first, then what it rests on."""
    return [*front_lines(results), "", *tried_lines(results)]


def front_lines(results: SearchResults) -> list[str]:
    """A row a point: means over seeds that the search had not seen, with their 95% intervals."""
    search, front = results.search, results.front
    if front.empty:
        return _none_within(results)
    single = len(search.objectives) == 1
    metrics = [one.metric for one in search.objectives]
    shown = front if single else front[front["on_front"]]
    if shown.empty:
        return wrap("The points of the front do not keep the limits when they are run again with other seeds.", WIDTH)
    heads = [["", "trial", *(metric_named(metric).label for metric in metrics)]]
    units = [["", "", *(_unit(metric) for metric in metrics)]]
    rows = [
        ["*" if row["is_knee"] else "", str(row["trial"]), *(_interval(row, metric) for metric in metrics)]
        for row in shown.to_dict("records")
    ]
    widths = [max(map(len, column)) for column in zip(*heads, *units, *rows, strict=True)]
    lines = [_aligned(cells, widths) for cells in (*heads, *units) if any(cells)]
    for cells, row in zip(rows, shown.to_dict("records"), strict=True):
        lines += _beside(_aligned(cells, widths), sum(widths) + 2 * len(widths), point_of_row(search, row))
    num_seeds = int(shown["num_seeds"].max())
    what = "best" if single else "knee of the front"
    notes = [f"* {what}; means of {counted(num_seeds, 'run')} with other seeds, 95% intervals"]
    num_lost = len(front) - int(front["on_front"].sum())
    if num_lost and not single:
        notes.append(f"{num_lost} more looked as good in the search, and were not when run again")
    overlap = _overlap(search, shown) if single else None
    return [*lines, "", *(line for note in [*notes, *([overlap] if overlap else [])] for line in wrap(note, WIDTH))]


def tried_lines(results: SearchResults) -> list[str]:
    """How many points of how many, what became of them, what it has cost."""
    trials = results.trials
    num = {status: int((trials["status"] == status).sum()) for status in (DONE, STOPPED, FAILED, INFEASIBLE)}
    tried = num[DONE] + num[STOPPED] + num[FAILED]
    left_out = results.num_left_out or 0
    of = "" if results.num_points is None else f" of {results.num_points - left_out:,}"
    parts = [f"{num[DONE]} to the end"]
    parts += [f"{num[STOPPED]} stopped after a short run"] if num[STOPPED] else []
    parts += [f"{num[FAILED]} failed"] if num[FAILED] else []
    what = f"{tried:,}{of} points" if of else counted(tried, "point")
    cost = f"the cost of {digits(results.num_runs)} whole runs"
    lines = wrap(f"{what} tried: {', '.join(parts)}; {cost}", WIDTH)
    if left_out:
        lines += wrap(
            f"{counted(left_out, 'point')} more {'is' if left_out == 1 else 'are'} left out by constraints", WIDTH
        )
    if num[INFEASIBLE]:
        lines += wrap(f"{counted(num[INFEASIBLE], 'point')} cannot be run, and cost nothing:", WIDTH)
        lines += _reasons(trials, INFEASIBLE)
    if num[FAILED]:
        lines += ["failed:", *_reasons(trials, FAILED)]
    return lines


def _reasons(trials: pd.DataFrame, status: str) -> list[str]:
    """The most frequent ones, each with how often."""
    alike: dict[str, list[str]] = {}
    for reason in trials.loc[trials["status"] == status, "reason"]:
        first = str(reason).partition("\n")[0]
        alike.setdefault(_NUMBER.sub("", first), []).append(first)
    found = sorted(alike.values(), key=len, reverse=True)
    lines = [
        line
        for group in found[:MOST_REASONS]
        for line in wrap(f"{len(group)} x {group[0]}", WIDTH - 2, initial_indent="  ", subsequent_indent="      ")
    ]
    rest = len(found) - MOST_REASONS
    return [*lines, *([f"  and {rest} other reasons (column `reason`)"] if rest > 0 else [])]


def _none_within(results: SearchResults) -> list[str]:
    """Nothing keeps the limits: the point that comes nearest."""
    trials = results.trials[results.trials["status"] == DONE]
    if trials.empty:
        return ["No point was run to its end."]
    row = trials.iloc[int(trials["excess"].argmin())]
    limits = ", ".join(
        f"{metric_named(metric).label} {value_words(metric, float(row[metric]))} ({_limit_words(metric, limit)})"
        for metric, limit in results.search.limits.items()
    )
    text = f"No point keeps the limits. Nearest: {limits} with {point_of_row(results.search, dict(row))}"
    return wrap(text, WIDTH)


def _limit_words(metric: str, limit: float) -> str:
    word = "at most" if metric_named(metric).better == "lower" else "at least"
    return f"{word} {value_words(metric, limit)}"


def _overlap(search: SearchFile, shown: pd.DataFrame) -> str | None:
    """Whether the best is surely better than the next."""
    if len(shown) < 2:
        return None
    metric = search.objectives[0].metric
    first, second = shown.iloc[0], shown.iloc[1]
    gap = abs(float(first[metric]) - float(second[metric]))
    reach = math.hypot(float(first[f"{metric}{HALF_WIDTH}"]), float(second[f"{metric}{HALF_WIDTH}"]))
    if not math.isfinite(reach):
        return None
    sure = "more" if gap > reach else "not more"
    return f"the best is ahead of the next by {value_words(metric, gap)}, {sure} than the seeds explain"


def _unit(metric: str) -> str:
    return metric_named(metric).unit


def _interval(row: dict[Any, Any], metric: str) -> str:
    """`0.812 ± 0.013`, as many decimals each."""
    per_unit = metric_named(metric).per_unit
    mean, half = float(row[metric]) / per_unit, float(row[f"{metric}{HALF_WIDTH}"]) / per_unit
    text = digits(mean)
    if not math.isfinite(half):
        return text
    decimals = len(text.partition(".")[2])
    return f"{text} ± {half:,.{decimals}f}"


def point_of_row(search: SearchFile, row: dict[Any, Any]) -> str:
    """`tp 4, batching chunked`."""
    parts = []
    for axis in search.axes:
        value = row[axis.name]
        if not pd.isna(value):
            unit = axis.range.unit if axis.range is not None else ""
            parts.append(f"{axis.title} {value:g} {unit}".rstrip() if axis.is_numeric else f"{axis.title} {value}")
    return ", ".join(parts)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _beside(left: str, indent: int, text: str) -> list[str]:
    """The text right of what is on the left, or below where there is no room."""
    if WIDTH - indent >= LEAST_POINT:
        first, *rest = wrap(text, WIDTH - indent)
        return [f"{left:<{indent}}{first}", *(" " * indent + line for line in rest)]
    return [left, *wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")]
