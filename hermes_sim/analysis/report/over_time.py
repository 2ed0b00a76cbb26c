"""What the engines did over the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hermes_sim.analysis.engine_lines import engine_lines
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.metrics import RESOURCES
from hermes_sim.analysis.report.chart import Chart, Trace, axis, bar, numbers, styles
from hermes_sim.analysis.report.latency import ROW_HEIGHT

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

QUANTITIES = {
    "utilization_frac": ("Busy", "share of the interval"),
    "mean_batch": ("Batch", "sequences or jobs in a step"),
    "num_waiting": ("Waiting", "visits in line"),
    "mean_kv_used_frac": ("KV memory used", "share of the blocks"),
}
SHARES = frozenset({"utilization_frac", "mean_kv_used_frac"})
MOST_BARS = 24


def timeline_charts(results: Results) -> Iterator[Chart]:
    """One chart a quantity, one line an engine; the time axis is shared."""
    lines = list(engine_lines(results.timeline))
    for place, (column, (title, unit)) in enumerate(QUANTITIES.items()):
        traces: list[Trace] = []
        for engine, (color, dash) in zip(lines, styles(), strict=False):
            values = engine.mean(column)
            if column == "mean_kv_used_frac" and not values.any():
                continue
            traces.append({
                "type": "scatter", "mode": "lines", "name": engine.label, "x": numbers(engine.edges_s[:-1]),
                "y": numbers(values), "line": {"color": color, "dash": dash, "width": 1.6, "shape": "hv"},
                "showlegend": place == 0,
            })  # fmt: skip
        if not traces:
            continue
        of_value = {"tickformat": ".0%"} if column in SHARES else {}
        layout = {
            "xaxis": axis("simulated time (s)"),
            "yaxis": axis("", rangemode="tozero", **of_value),
            "shapes": _window(results),
        }
        yield Chart(f"time-{column.replace('_', '-')}", f"{title}:", f"{unit}.", traces, layout, height=210)


def busy_chart(results: Results) -> Chart | None:
    """Share of the run that each engine was busy, by what limited its steps."""
    engines = results.engines
    if engines.empty:
        return None
    busiest = engines.sort_values("utilization_frac", ascending=False, kind="stable").head(MOST_BARS).sort_index()
    rows = [str(name) for name in busiest["engine"]]
    busy_s = np.sum([floats(busiest, f"{resource}_s") for resource in RESOURCES], axis=0)
    share = np.divide(floats(busiest, "utilization_frac"), busy_s, out=np.zeros_like(busy_s), where=busy_s > 0)
    traces = [bar(resource, share * floats(busiest, f"{resource}_s"), rows) for resource in RESOURCES]
    for trace in traces:
        trace["hovertemplate"] = f"{trace['name']} %{{x:.1%}} of the run<extra>%{{y}}</extra>"
    layout = {
        "barmode": "stack",
        "xaxis": axis("share of the run", range=[0, 1], tickformat=".0%"),
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    more = "" if len(rows) == len(engines) else f" The {len(rows)} busiest of {len(engines)}."
    caption = f"share of the run with a step under way, by what limited it.{more}"
    return Chart("busy", "Engines:", caption, traces, layout, height=110 + ROW_HEIGHT * len(rows))


def _window(results: Results) -> list[dict[str, object]]:
    """What was not measured is shaded."""
    if results.window.whole_run:
        return []
    ends_s = ((0.0, results.window.start_s), (results.window.end_s, results.duration_s))
    return [
        {"type": "rect", "x0": start_s, "x1": end_s, "y0": 0, "y1": 1, "yref": "paper", "line": {"width": 0},
         "fillcolor": "#8c8c8c", "opacity": 0.18, "layer": "below"}
        for start_s, end_s in ends_s if end_s > start_s
    ]  # fmt: skip
