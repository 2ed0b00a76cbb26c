"""The HTML page of a sweep: any metric over any axis or metric, the Pareto front, every point in a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

import pandas as pd
import yaml

from hermes_sim import __version__
from hermes_sim.analysis.report.chart import COLORS
from hermes_sim.analysis.report.whole_page import whole_page
from hermes_sim.explore.sweep_page import DEFAULT_BY, failure_lines, outcome_line, shape_lines
from hermes_sim.explore.sweep_results import NUM_SEEDS, SweepResults
from hermes_sim.scenario.study_metrics import metric_of

MOST_POINTS: Final = 20_000
"""On the page: a browser draws and sorts so many without a pause. The table of runs has all."""
SYMBOLS: Final = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x", "hexagon")
SIGNIFICANT_DIGITS: Final = 6
LEAST_SPAN: Final = 20.0
"""Largest over smallest value of a logarithmic axis."""


def runs_page(results: SweepResults, by: Sequence[str] = ()) -> str:
    """The whole page as text. by: metrics that it opens with."""
    sweep = results.sweep
    points = results.points.head(MOST_POINTS)
    asked = [metric for metric in (*by, *sweep.by, *DEFAULT_BY) if metric in results.metrics]
    data = {
        "columns": list(_columns(results, points)),
        "numRows": len(points),
        "seeds": int(points[NUM_SEEDS].max()) if len(points) else 1,
        "start": _start(results, points, list(dict.fromkeys(asked))),
        "colors": COLORS,
        "symbols": SYMBOLS,
    }
    title = sweep.title or sweep.name.replace("_", " ")
    num_points = len(results.runs.drop_duplicates(results.axes))
    shape = shape_lines(sweep.model_copy(update={"title": None}), num_points, results.left_out, results.num_twice)
    lines = "".join(f"<p>{escape(line)}</p>" for line in (*shape, outcome_line(results), f"hermes-sim {__version__}"))
    inner = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")  # nothing in it may end the script
    body = (
        f"<header><h1>{escape(title)}</h1>{lines}</header>{_findings(results, len(points))}<main>"
        f'<section id="points"><h2>Points</h2>{_controls()}<div class="charts wide"><figure class="chart-of-runs">'
        '<figcaption id="reading"></figcaption><div class="plot" id="scatter" style="height:460px" role="img" '
        'aria-label="Points of the sweep"></div></figure></div><div id="chosen" aria-live="polite"></div></section>'
        '<section id="table"><h2>Table</h2><p class="soft">Click a column to sort by it. '
        'All metrics are in runs.parquet.</p><div class="scroll" tabindex="0"><table id="rows"></table></div></section>'
        '<section id="file"><h2>What was run</h2><details><summary>The sweep\'s file</summary>'
        f"<pre>{escape(_file_text(results))}</pre></details></section></main>"
        f'<script type="application/json" id="data">{inner}</script>'
    )
    return whole_page(title, body, (files("hermes_sim.explore") / "runs_page.js").read_text(encoding="utf-8"))


def _columns(results: SweepResults, points: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Axes first, then the metrics that some point has, in the units they are drawn in."""
    for axis in results.sweep.axes:
        values = points[axis.name]
        is_number = pd.api.types.is_numeric_dtype(values)
        cells = _numbers(values) if is_number else [None if pd.isna(value) else str(value) for value in values]
        yield {"name": axis.name, "title": axis.title, "axis": True, "number": is_number, "values": cells}
    for name in results.metrics:
        metric = metric_of(name.partition("@")[0])
        if metric is None or points[name].isna().all():
            continue
        tier = name.partition("@")[2]
        yield {
            "name": name,
            "title": f"{metric.title}{f', {tier}' if tier else ''}",
            "axis": False,
            "number": True,
            "better": metric.better,
            "values": _numbers(points[name] / metric.per_unit),
        }


def _numbers(values: pd.Series) -> list[float | None]:
    listed = pd.to_numeric(values).astype("float64")
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None for value in listed]


def _start(results: SweepResults, points: pd.DataFrame, asked: list[str]) -> dict[str, Any]:
    """What is drawn before anything is chosen: two metrics against each other, coloured by the axis with few values."""
    metrics = [*asked, *(name for name in results.metrics if name not in asked)]
    num_values = {axis: points[axis].nunique() for axis in results.axes}
    several = {axis: number for axis, number in num_values.items() if number > 1}
    color = min(several, key=lambda axis: several[axis]) if several else results.axes[0]
    x, y = metrics[min(1, len(metrics) - 1)], metrics[0]
    return {"x": x, "y": y, "color": color, "shown": asked, "log": {"x": _is_wide(points[x]), "y": _is_wide(points[y])}}


def _is_wide(values: pd.Series) -> bool:
    """Whether a linear axis would leave most points in a corner."""
    low, high = float(values.min()), float(values.max())
    return low > 0 and high > LEAST_SPAN * low


def _controls() -> str:
    choices = "".join(
        f'<label>{label} <select id="{name}"></select></label>'
        for name, label in (("x", "across"), ("y", "up"), ("color", "colour"))
    )
    scales = "".join(
        f'<label><input type="checkbox" id="log-{name}"> {name} logarithmic</label>' for name in ("x", "y")
    )
    return f'<div class="controls">{choices}{scales}</div>'


def _findings(results: SweepResults, num_shown: int) -> str:
    lines = [line.strip() for line in failure_lines(results) if line.strip()]
    if len(results.points) > num_shown:
        lines.append(f"the first {num_shown:,} of {len(results.points):,} points are on this page")
    items = "".join(f'<li class="warning">{escape(line)}</li>' for line in lines)
    return f'<ul class="findings">{items}</ul>' if items else ""


def _file_text(results: SweepResults) -> str:
    described = json.loads(results.sweep.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True))
    return yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
