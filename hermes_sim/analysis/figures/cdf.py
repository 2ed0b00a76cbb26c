"""Cumulative distributions of latencies, of one run or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hermes_sim.analysis.frames import FloatArray, floats, is_finished
from hermes_sim.analysis.human import TIME_UNITS, as_written, time_unit
from hermes_sim.analysis.objectives import Objective
from hermes_sim.analysis.picture import LIMIT_COLOR, Width, legend_below, line_style, panels, styled, width_in
from hermes_sim.core.errors import HermesError
from hermes_sim.core.words import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

TITLES: Final = {"ttft": "TTFT", "ttfat": "TTFAT", "tpot": "TPOT", "e2e": "E2E"}
USUAL: Final = ("ttft", "tpot", "e2e")
FARTHEST_LIMIT: Final = 1.5
"""A limit farther out than so many times the slowest request is named, not drawn."""
MOST_POINTS: Final = 1000
"""Of a curve; more of them are thinned, the tail last."""
LIMIT_STYLES: Final = ("--", ":", "-.")
LEAST_PANEL_IN: Final = 1.9
"""Narrower panels stand one above the other."""
HEIGHT_IN: Final = 1.7


@styled
def cdf(results: Results | Mapping[str, Results], *latencies: str, width: Width = "page", log: bool = False) -> Figure:
    """Share of the measured, finished requests within a latency: ttft, tpot and e2e, or those named.

    results: one run with the limits of its SLO, or several by name, a curve for each. log: of the times.
    """
    names = latencies or USUAL
    unknown = [name for name in names if name not in TITLES]
    if unknown:
        near = did_you_mean(unknown[0], list(TITLES))
        raise HermesError(f"{unknown[0]!r} is not a latency of requests ({', '.join(TITLES)}).{near}")
    runs = results if isinstance(results, Mapping) else {"": results}
    across = width_in(width) / len(names) >= LEAST_PANEL_IN
    shape = {"columns": len(names)} if across else {"rows": len(names)}
    figure, axes_of = panels(width, HEIGHT_IN if across else HEIGHT_IN * 0.85, share_y=across, share_x=False, **shape)
    for axes, name in zip(axes_of, names, strict=True):
        _panel(axes, name, runs, log=log)
    for axes in axes_of[:1] if across else axes_of:
        axes.set_ylabel("share of requests")
    legend_below(figure, columns=3 if width_in(width) > LEAST_PANEL_IN * 2 else 2)
    return figure


def _panel(axes: Axes, name: str, runs: Mapping[str, Results], *, log: bool) -> None:
    known = {label: _latencies_s(run, name) for label, run in runs.items()}
    unit = time_unit([float(np.median(values_s)) for values_s in known.values() if len(values_s)])
    scale = TIME_UNITS[unit]
    farthest = 0.0
    for place, (label, values_s) in enumerate(known.items()):
        if len(values_s):
            x, y = _curve(values_s)
            axes.step(x / scale, y, where="post", label=label or None, **line_style(place))
            farthest = max(farthest, float(values_s[-1]) / scale)
    if len(runs) == 1:
        (run,) = runs.values()
        limits = [one for one in run.objectives if one.latency == name and not one.is_multiple]
        farthest = _limits(axes, TITLES[name], limits, farthest, scale)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel(f"{TITLES[name]} ({unit})")
    if log and farthest > 0:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0.0, 1.05 * farthest if farthest > 0 else 1.0)


def _latencies_s(results: Results, name: str) -> FloatArray:
    requests = results.measured_requests
    values_s = floats(requests[is_finished(requests)], f"{name}_s")
    return np.sort(values_s[~np.isnan(values_s)])


def _curve(ordered: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Steps of the empirical distribution, from 0 on; of many values order statistics, denser towards the end."""
    ranks = np.arange(1, len(ordered) + 1)
    if len(ordered) > MOST_POINTS:
        even = np.linspace(1, len(ordered), MOST_POINTS // 2)
        tail = len(ordered) + 1 - np.geomspace(1, len(ordered), MOST_POINTS // 2)
        ranks = np.unique(np.rint(np.concatenate([even, tail])).astype(np.int64))
    x = np.append(ordered[:1], ordered[ranks - 1])
    return x, np.append(0.0, ranks / len(ordered))


def _limits(axes: Axes, title: str, limits: Sequence[Objective], farthest: float, scale: float) -> float:
    """Limits in seconds; a multiple of the unloaded request has no single place on the axis. Returns the farthest."""
    slowest = farthest
    for limit, style in zip(limits, cycle(LIMIT_STYLES), strict=False):
        label = f"{title} {limit.statistic} ≤ {as_written(limit.bound)}"
        line: dict[str, Any] = {"color": LIMIT_COLOR, "linestyle": style, "linewidth": 1.0}
        if limit.bound / scale <= FARTHEST_LIMIT * slowest:
            axes.axvline(limit.bound / scale, label=label, **line)
            farthest = max(farthest, limit.bound / scale)
        else:
            axes.plot([], [], label=f"{label} (beyond)", **line)
    return farthest
