"""The roofline of an engine's devices with the operators of a mean step on it (Williams et al., CACM 2009)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_sim.analysis.human import with_prefix
from hermes_sim.analysis.report.chart import COLORS, Chart, Trace, axis, numbers
from hermes_sim.analysis.roofline import Roofline, longest_apart, rooflines

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")
MOST_NAMED = 6
"""Operators named on the chart, those that take longest; the others say their name when pointed at."""
NEAREST_NAMES = (0.55, 0.25)
"""Decades along intensity and rate: of two operators nearer than that the one that takes longer is named."""
MOST_CHARTS = 4


def roofline_charts(results: Results) -> Iterator[Chart]:
    """One chart for each engine of another name, of its first replica."""
    for one in islice(rooflines(results), MOST_CHARTS):
        yield _chart(one)


def _chart(roofline: Roofline) -> Chart:
    traces = list(_roofs(roofline))
    operators = roofline.operators
    named = {operators.index[place] for place in longest_apart(roofline, MOST_NAMED, NEAREST_NAMES)}
    for place, stage in enumerate(dict.fromkeys(str(one) for one in operators["stage"])):
        of_stage = operators[operators["stage"] == stage]
        traces.append({
            "type": "scatter", "mode": "markers+text", "name": stage,
            "x": numbers(of_stage["intensity"]), "y": numbers(of_stage["flops_per_s"]),
            "text": [str(row["operator"]) if label in named else "" for label, row in of_stage.iterrows()],
            "textposition": "bottom center", "textfont": {"size": 10},
            "customdata": [
                [str(row["operator"]), f"{row['share_frac']:.1%}", str(row["bound"]), str(row["provenance"])]
                for _, row in of_stage.iterrows()
            ],
            "marker": {"symbol": SYMBOLS[place % len(SYMBOLS)], "color": COLORS[place % len(COLORS)],
                       "size": numbers(7.0 + 16.0 * np.sqrt(of_stage["share_frac"])), "opacity": 0.85,
                       "line": {"width": 0.5}},
            "hovertemplate": "%{customdata[0]}: %{customdata[1]} of the step<br>%{x:.3~s} FLOP/byte, %{y:.3~s}FLOP/s"
                             f"<br>limited by %{{customdata[2]}}, %{{customdata[3]}}<extra>{stage}</extra>",
        })  # fmt: skip
    layout = {
        "xaxis": axis("arithmetic intensity (FLOP/byte)", type="log", dtick=1, tickformat="~s"),
        "yaxis": axis("reached (FLOP/s)", type="log", dtick=1, tickformat="~s"),
    }
    caption = (
        f"{roofline.num_devices} x {roofline.device}; a marker is an operator of the mean step, its size the share of "
        "the step's time. Below a roof is what a kernel does not reach; small ones wait for their launch."
    )
    title = f"Roofline of {roofline.engine}:"
    return Chart(f"roofline-{roofline.name}", title, caption, traces, layout, height=420)


def _roofs(roofline: Roofline) -> Iterator[Trace]:
    bandwidth, bend = roofline.bandwidth_bytes_per_s, roofline.ridge
    low, high = roofline.limits
    line: dict[str, Any] = {"color": COLORS[-1], "width": 1.5}
    slope = [low, (low * bend) ** 0.5, bend]
    yield _line(slope, [one * bandwidth for one in slope], line, ["", with_prefix(bandwidth, "B/s"), ""])
    for dtype, height in roofline.peaks_flops_per_s.items():
        name = f"{dtype} {with_prefix(height, 'FLOP/s')}"
        yield _line([height / bandwidth, high], [height, height], {**line, "dash": "dash"}, ["", name])


def _line(x: Sequence[float], y: Sequence[float], line: dict[str, Any], texts: list[str]) -> Trace:
    return {"type": "scatter", "mode": "lines+text", "x": numbers(x), "y": numbers(y), "line": line,
            "text": texts, "textposition": "top left", "textfont": {"size": 10}, "showlegend": False,
            "hoverinfo": "name", "name": "".join(texts)}  # fmt: skip
