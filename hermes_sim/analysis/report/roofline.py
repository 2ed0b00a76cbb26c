"""The roofline of an engine's devices with the operators of a mean step on it (Williams et al., CACM 2009)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.human import with_prefix
from hermes_sim.analysis.report.chart import COLORS, Chart, Trace, axis, numbers
from hermes_sim.analysis.trust import engine_name

if TYPE_CHECKING:
    from hermes_sim.analysis.results import Results
    from hermes_sim.hardware.device import Device

SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star")
MOST_NAMED = 6
"""Operators named on the chart, those that take longest; the others say their name when pointed at."""
NEAREST_NAMES = (0.55, 0.25)
"""Decades along intensity and rate: of two operators nearer than that the one that takes longer is named."""
MOST_CHARTS = 4
MOST_ROOFS = 2


def roofline_charts(results: Results) -> Iterator[Chart]:
    """One chart for each engine of another name, of its first replica."""
    seen: set[str] = set()
    for _, engine in results.engines.iterrows():
        name = engine_name(engine["engine"])
        if name in seen or len(seen) >= MOST_CHARTS:
            continue
        rows = results.operators[results.operators["engine"] == engine["engine"]]
        rows = rows[(rows["flops"] > 0) & (rows["bytes"] > 0) & (rows["time_s"] > 0)]
        num_devices, _, profile = str(engine["devices"]).partition(" x ")
        device = next((one for one in results.scenario.devices.values() if one.name == profile), None)
        if rows.empty or device is None:
            continue
        seen.add(name)
        yield _chart(str(engine["engine"]), int(num_devices), device, rows)


def _chart(name: str, num_devices: int, device: Device, rows: pd.DataFrame) -> Chart:
    intensity = floats(rows, "flops") / floats(rows, "bytes")
    rate = floats(rows, "flops") / floats(rows, "time_s")
    low, high = float(intensity.min()) / 3.0, float(intensity.max()) * 3.0
    peaks = _peaks(device, float(rate.max()) / num_devices)
    bandwidth = device.memory.bandwidth_bytes_per_s * num_devices
    high = max(high, 2.0 * max(peaks.values()) * num_devices / bandwidth)
    traces = list(_roofs(peaks, num_devices, bandwidth, low, high))
    named = _named(rows, np.log10(intensity), np.log10(rate))
    for place, stage in enumerate(dict.fromkeys(str(one) for one in rows["stage"])):
        chosen = (rows["stage"] == stage).to_numpy()
        of_stage = rows[chosen]
        share = floats(of_stage, "time_s") / float(of_stage["time_s"].sum())
        traces.append({
            "type": "scatter", "mode": "markers+text", "name": stage,
            "x": numbers(intensity[chosen]), "y": numbers(rate[chosen]),
            "text": [str(row["operator"]) if label in named else "" for label, row in of_stage.iterrows()],
            "textposition": "bottom center", "textfont": {"size": 10},
            "customdata": [
                [str(row["operator"]), f"{part:.1%}", str(row["bound"]), str(row["provenance"])]
                for (_, row), part in zip(of_stage.iterrows(), share, strict=True)
            ],
            "marker": {"symbol": SYMBOLS[place % len(SYMBOLS)], "color": COLORS[place % len(COLORS)],
                       "size": numbers(7.0 + 16.0 * np.sqrt(share)), "opacity": 0.85, "line": {"width": 0.5}},
            "hovertemplate": "%{customdata[0]}: %{customdata[1]} of the step<br>%{x:.3~s} FLOP/byte, %{y:.3~s}FLOP/s"
                             f"<br>limited by %{{customdata[2]}}, %{{customdata[3]}}<extra>{stage}</extra>",
        })  # fmt: skip
    layout = {
        "xaxis": axis("arithmetic intensity (FLOP/byte)", type="log", dtick=1, tickformat="~s"),
        "yaxis": axis("reached (FLOP/s)", type="log", dtick=1, tickformat="~s"),
    }
    caption = (
        f"{num_devices} x {device.title}; a marker is an operator of the mean step, its size the share of the step's "
        "time. Below a roof is what a kernel does not reach; small ones wait for their launch."
    )
    return Chart(
        f"roofline-{name.split('[', maxsplit=1)[0]}", f"Roofline of {name}:", caption, traces, layout, height=420
    )


def _named(rows: pd.DataFrame, log_intensity: FloatArray, log_rate: FloatArray) -> set[Any]:
    """Labels of the rows whose names have room on the chart, the longest operators first."""
    places = dict(zip(rows.index, zip(log_intensity, log_rate, strict=True), strict=True))
    named: list[Any] = []
    for label in rows["time_s"].sort_values(ascending=False, kind="stable").index:
        x, y = places[label]
        near = any(
            abs(x - places[one][0]) < NEAREST_NAMES[0] and abs(y - places[one][1]) < NEAREST_NAMES[1] for one in named
        )
        if not near and len(named) < MOST_NAMED:
            named.append(label)
    return set(named)


def _peaks(device: Device, reached: float) -> dict[str, float]:
    """Dense peaks of one device: the lowest that nothing has passed, and the next higher ones of other height."""
    peaks: dict[str, float] = {}
    for dtype, peak in sorted(device.peak_flops_per_s.items(), key=lambda one: one[1]):
        if peak >= reached and peak not in peaks.values():
            peaks[str(dtype)] = peak
    chosen = dict(list(peaks.items())[:MOST_ROOFS])
    return chosen or {str(max(device.peak_flops_per_s, key=lambda one: device.peak_flops_per_s[one])): reached}


def _roofs(peaks: dict[str, float], num_devices: int, bandwidth: float, low: float, high: float) -> Iterator[Trace]:
    highest = max(peaks.values()) * num_devices
    bend = highest / bandwidth
    line: dict[str, Any] = {"color": COLORS[-1], "width": 1.5}
    label = with_prefix(bandwidth, "B/s")
    middle = (low * bend) ** 0.5
    slope = [low, middle, bend]
    yield _line(slope, [one * bandwidth for one in slope], line, ["", label, ""])
    for dtype, peak in peaks.items():
        height = peak * num_devices
        name = f"{dtype} {with_prefix(height, 'FLOP/s')}"
        yield _line([height / bandwidth, high], [height, height], {**line, "dash": "dash"}, ["", name])


def _line(x: Sequence[float], y: Sequence[float], line: dict[str, Any], texts: list[str]) -> Trace:
    return {"type": "scatter", "mode": "lines+text", "x": numbers(x), "y": numbers(y), "line": line,
            "text": texts, "textposition": "top left", "textfont": {"size": 10}, "showlegend": False,
            "hoverinfo": "name", "name": "".join(texts)}  # fmt: skip
