"""What a sweep has found, in words and small tables of at most 80 columns."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hermes_sim.analysis.human import digits
from hermes_sim.core.errors import HermesError
from hermes_sim.core.words import did_you_mean, listed
from hermes_sim.explore.plan import Plan
from hermes_sim.explore.sweep_results import HALF_WIDTH, SweepResults
from hermes_sim.explore.words import counted, metric_named, point_words, value_words
from hermes_sim.scenario.expression import parse_expression
from hermes_sim.scenario.study_metrics import METRICS, metric_of
from hermes_sim.scenario.sweep import SweepFile
from hermes_sim.scenario.sweep_checks import drawn_axes

WIDTH: Final = 80
DEFAULT_BY: Final = ("output_tokens_per_s", "ttft_p99_s", "cost_per_million_output_tokens_usd")
MOST_REASONS: Final = 6
MOST_LISTED: Final = 40


def check_words(by: Sequence[str], where: str | None, axes: Sequence[str]) -> None:
    """Names of metrics and a condition, before anything is run. Raises HermesError."""
    for name in by:
        if metric_of(name.partition("@")[0]) is None:
            raise HermesError(f"--by {name}: is not a metric ({listed(METRICS)}).{did_you_mean(name, METRICS)}")
    if where is None:
        return
    try:
        expression = parse_expression(where)
    except ValueError as error:
        raise HermesError(f"--where: {error}") from None
    for name in (*expression.names, *expression.paths):
        if name not in axes and metric_of(name) is None:
            near = did_you_mean(name, [*axes, *METRICS])
            raise HermesError(f"--where: {name!r} is neither an axis ({listed(axes)}) nor a metric.{near}")


def found_lines(results: SweepResults, by: Sequence[str], top: int, where: str | None = None) -> list[str]:
    """All that a person is shown: the best points, what was run, what failed."""
    sweep = results.sweep
    num_points = len(results.runs.drop_duplicates(results.axes))
    return [
        *shape_lines(sweep, num_points, results.left_out, results.num_twice),
        outcome_line(results),
        *failure_lines(results),
        *best_lines(results, by, top, where),
    ]


def found_data(results: SweepResults, by: Sequence[str], top: int, where: str | None = None) -> dict[str, Any]:
    """The same for programs."""
    failed = results.failures["error"].astype("str").value_counts()
    best = {metric: results.ranked(metric, where).head(top) for metric in by if metric in results.metrics}
    return {
        "sweep": results.sweep.name,
        "num_points": len(results.runs.drop_duplicates(results.axes)),
        "num_runs": len(results.runs),
        "num_reused": results.num_reused,
        "num_failed": len(results.failures),
        "left_out": dict(results.left_out),
        "num_twice": results.num_twice,
        "failures": {str(reason): int(number) for reason, number in failed.items() if number},
        "best": {metric: json.loads(table.to_json(orient="records")) for metric, table in best.items()},
    }


def shape_lines(sweep: SweepFile, num_points: int, left_out: Mapping[str, int], num_twice: int) -> list[str]:
    """The axes, how many points, and why others are none."""
    title = f"{sweep.title}\n" if sweep.title else ""
    base = f"{Path(sweep.base.workload).stem} on {Path(sweep.base.cluster).stem}"
    counts = f"{counted(num_points, 'point')}, {counted(sweep.replications, 'seed')} each"
    counts += f"; {num_twice:,} drawn twice and run once" if num_twice else ""
    lines = [*title.splitlines(), *_wrapped(f"{base}: {_axis_words(sweep)}"), counts]
    return lines + [f"left out {number:,}: {reason}" for reason, number in left_out.items()]


def _axis_words(sweep: SweepFile) -> str:
    """`3 tp x 2 batching, 64 Sobol draws of rate (1 /s to 8 /s)`."""
    drawn = drawn_axes(sweep)
    grid = " x ".join(f"{len(axis.names)} {_words(axis.name)}" for axis in sweep.axes if axis.name not in drawn)
    if not drawn:
        return grid
    kind = "Sobol" if sweep.sampling.kind == "sobol" else sweep.sampling.kind
    ranges = [
        _words(axis.name) + (f" ({axis.range.start} to {axis.range.end})" if axis.range is not None else "")
        for axis in sweep.axes
        if axis.name in drawn
    ]
    draws = f"{sweep.sampling.num} {kind} draws of {', '.join(ranges)}"
    return f"{grid}, {draws}" if grid else draws


def _words(name: str) -> str:
    return name.replace("_", " ")


def outcome_line(results: SweepResults) -> str:
    """How many runs there are, failed, or were there before."""
    num = len(results.runs)
    parts = [f"{counted(num, 'run')}"]
    if results.num_reused:
        parts.append(f"{results.num_reused:,} were there already")
    failed = len(results.failures)
    parts.append(f"{failed:,} failed" if failed else "none failed")
    return ", ".join(parts)


def failure_lines(results: SweepResults) -> list[str]:
    """The reasons, most frequent first, each with how many runs and one of its points."""
    failed = results.failures
    if failed.empty:
        return []
    reasons = failed["error"].astype("str").str.split("\n").str[0]
    counts = reasons.value_counts()
    lines = []
    for reason, number in list(counts.items())[:MOST_REASONS]:
        row = failed[reasons == reason].iloc[0]
        where = point_words(_point_of(row, results.axes))
        lines += _wrapped(f"failed {number:,}: {reason} (such as {where})", indent="  ")
    rest = len(counts) - MOST_REASONS
    return [*lines, *([f"and {counted(rest, 'other reason')} (column `error` of the table)"] if rest > 0 else [])]


def best_lines(results: SweepResults, by: Sequence[str], top: int, where: str | None = None) -> list[str]:
    """For each metric a small table of the points that are best by it."""
    lines: list[str] = []
    for metric in by:
        if metric not in results.metrics:
            lines += ["", f"no run has {metric}"]
            continue
        every = results.ranked(metric, where)
        ranked = every.head(top)
        found = metric_named(metric.partition("@")[0])
        among = f" where {where}" if where else ""
        lines += ["", *_wrapped(f"best by {found.label}{among} ({found.better} is better)", indent="  ")]
        lines += _table(results, ranked, metric, [other for other in by if other != metric]) or ["  no point has one"]
        if len(every) > 1 and results.sweep.replications > 1:
            lines.append(f"  {_lead_words(results, metric, every)}")
    if results.sweep.replications == 1:
        lines += ["", "one seed each: small leads may be chance (--replications 3)"]
    return lines


def _lead_words(results: SweepResults, metric: str, ranked: pd.DataFrame) -> str:
    """Whether the first point is ahead of the next by more than chance, and for how many that cannot be said."""
    behind = 0
    for index in range(1, len(ranked)):
        if results.difference(metric, ranked.iloc[0], ranked.iloc[index]).significant:
            break
        behind += 1
    if behind == 1:
        return "not ahead of the next by more than chance (pairs of equal seeds, 95%)"
    if not behind:
        return "ahead of the next by more than chance (pairs of equal seeds, 95%)"
    if behind == len(ranked) - 1:
        return "not ahead of any by more than chance (pairs of equal seeds, 95%)"
    return f"not ahead of the next {behind:,} by more than chance (pairs of equal seeds, 95%)"


def _table(results: SweepResults, ranked: pd.DataFrame, metric: str, others: Sequence[str]) -> list[str]:
    """Aligned columns: the metric, then the axes, then other metrics as far as there is room."""
    if ranked.empty:
        return []
    axes = [axis for axis in results.axes if ranked[axis].notna().any()]
    columns = [[metric_named(metric).label, *(_measured(row, metric) for row in _records(ranked))]]
    columns += [[axis, *(_cell(row[axis]) for row in _records(ranked))] for axis in axes]
    extra = [
        [metric_named(name).label, *(_measured(row, name) for row in _records(ranked))]
        for name in others
        if name in ranked and ranked[name].notna().any()
    ]
    while extra and _width([*columns, *extra]) > WIDTH:
        extra.pop()
    columns[1:1] = extra
    if _width(columns) > WIDTH:
        return [line for row in _records(ranked) for line in _long(row, metric, axes)]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _long(row: Mapping[Any, Any], metric: str, axes: Sequence[str]) -> list[str]:
    where = point_words(_point_of(row, axes))
    return _wrapped(f"  {_measured(row, metric)}: {where}", indent="    ")


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in columns)


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict("records")


def _measured(row: Mapping[Any, Any], metric: str) -> str:
    """The mean, and over several seeds half of its interval in its own unit."""
    if pd.isna(row[metric]):
        return "-"
    words = value_words(metric.partition("@")[0], float(row[metric]))
    half = row.get(f"{metric}{HALF_WIDTH}")
    if half is None or pd.isna(half) or not row[metric]:
        return words
    return f"{words} +-{digits(100 * float(half) / abs(float(row[metric])), 2)}%"


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return "-"
    return value if isinstance(value, str) else f"{value:g}"


def _point_of(row: Any, axes: Sequence[str]) -> dict[str, str]:
    return {axis: _cell(row[axis]) for axis in axes if not pd.isna(row[axis])}


def plan_lines(sweep: SweepFile, plan: Plan) -> list[str]:
    """Of a plan that is not run: its points, and which of them cannot be."""
    points = list({tuple(run.point.items()): run for run in plan.runs}.values())
    names = [axis.name for axis in sweep.axes]
    rows = [[run.point.get(name, "-") for name in names] for run in points[:MOST_LISTED]]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in (names, *rows)]
    for index, run in enumerate(points[:MOST_LISTED], start=1):
        if run.problem is not None:
            lines[index] += f"  cannot be run: {run.problem.splitlines()[0]}"
    rest = len(points) - MOST_LISTED
    wrong = sum(run.problem is not None for run in points)
    return [
        *(line.rstrip() for line in lines),
        *([f"and {rest:,} more"] if rest > 0 else []),
        f"{counted(len(points), 'point')}, {counted(len(plan.runs), 'run')}"
        + (f", {wrong:,} cannot be run" if wrong else ""),
    ]


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
