"""Distributions of the latencies, and what the time of a request goes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.analysis.frames import floats, is_finished
from hermes_sim.analysis.human import as_written
from hermes_sim.analysis.metrics import RESOURCES, stage_times
from hermes_sim.analysis.picture import LIMIT_COLOR
from hermes_sim.analysis.report.chart import COLORS, Chart, axis, bar, numbers

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E"}
SHARES = np.concatenate([np.linspace(0.0, 0.98, 197), np.linspace(0.981, 1.0, 20)])
"""Quantiles that are drawn: more of them in the tail."""
ROW_HEIGHT = 34
"""Pixels of a bar and the space around it."""


def latency_charts(results: Results) -> Iterator[Chart]:
    """Cumulative distributions of TTFT, TPOT and E2E over the finished, measured requests, with the limits."""
    requests = results.measured_requests
    requests = requests[is_finished(requests)]
    for name, title in LATENCIES.items():
        values = floats(requests, f"{name}_s")
        values = values[~np.isnan(values)]
        if len(values) == 0:
            continue
        line = {
            "type": "scatter",
            "mode": "lines",
            "x": numbers(np.quantile(values, SHARES)),
            "y": numbers(SHARES),
            "line": {"color": COLORS[0], "width": 2},
            "hovertemplate": f"%{{y:.1%}} of requests within %{{x:.3~s}}s<extra>{title}</extra>",
            "showlegend": False,
        }
        limits = [one for one in results.objectives if one.latency == name and not one.is_multiple]
        shapes: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for limit in limits:
            color = {"color": LIMIT_COLOR, "dash": "dash", "width": 1.5}
            shapes.append(
                {"type": "line", "x0": limit.bound, "x1": limit.bound, "y0": 0, "y1": 1, "yref": "paper", "line": color}
            )
            text = f"{limit.statistic} ≤ {as_written(limit.bound)}"
            notes.append({"x": limit.bound, "y": 0.08, "yref": "paper", "text": text, "showarrow": False,
                          "xanchor": "right", "bgcolor": "var(--paper)"})  # fmt: skip
        layout = {
            "xaxis": axis(f"{title} (s)", rangemode="tozero"),
            "yaxis": axis("share of requests", range=[0, 1.02], tickformat=".0%"),
            "shapes": shapes,
            "annotations": notes,
        }
        yield Chart(f"cdf-{name}", title, f"of {len(values):,} measured requests.", [line], layout)


def stage_chart(results: Results) -> Chart | None:
    """Mean time of a visit by stage: waiting, moving, and service by what limited it."""
    times = stage_times(results.measured_visits)
    if times.empty:
        return None
    rows = [str(name) for name in times.index]
    parts = ("queue", "preempted", "transfer", *RESOURCES)
    traces = [bar(part, floats(times, f"{part}_s"), rows) for part in parts if floats(times, f"{part}_s").any()]
    for trace in traces:
        trace["hovertemplate"] = f"{trace['name']} %{{x:.3~s}}s<extra>%{{y}}</extra>"
    layout = {
        "barmode": "stack",
        "xaxis": axis("mean time per visit (s)"),
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    caption = "waiting, moving data, and service by the resource that limited it."
    return Chart("stages", "Time by stage:", caption, traces, layout, height=110 + ROW_HEIGHT * len(rows))
