"""The roofline of an engine, with the operators of its mean steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hermes_sim.analysis.figures.labels import along, place_names
from hermes_sim.analysis.frames import floats
from hermes_sim.analysis.human import with_prefix
from hermes_sim.analysis.picture import MARKERS, PALETTE, Width, legend_below, picture, styled, width_in
from hermes_sim.analysis.roofline import Roofline, longest_apart, rooflines
from hermes_sim.core.errors import HermesError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hermes_sim.analysis.results import Results

HEIGHT_IN: Final = 2.7
MOST_NAMED: Final = 10
"""Operators named, those that take longest, as far as there is room."""
NEAREST_NAMES: Final = (0.3, 0.12)
"""Decades along intensity and rate: of two operators nearer than that the one that takes longer is named."""
ROOM_FOR_NAMES: Final = 25.0
LEAST_PT: Final = 3.0
"""Diameter of a marker of no time."""
MORE_PT: Final = 6.0
"""What the whole step's time adds to it."""
DECADES_ABOVE: Final = 0.6
"""Room over the highest roof, for its name."""


@styled
def roofline(results: Results, engine: str | None = None, *, width: Width = "column") -> Figure:
    """What each operator reached of its devices' peaks, by arithmetic intensity; a marker's area grows with its time.

    engine: its name; the first one that computes if not given. Raises HermesError if there is none.
    """
    found = {one.name: one for one in rooflines(results)}
    name = next(iter(found), "") if engine is None else engine
    if name not in found:
        known = f"; there are {', '.join(found)}" if found else ""
        raise HermesError(f"no roofline of {name!r}: no operators with FLOPs and bytes are known of it{known}")
    figure = picture(width, HEIGHT_IN)
    axes: Axes = figure.subplots()
    _draw(axes, found[name])
    legend_below(figure, columns=6 if width_in(width) > 5 else 4)
    _names(axes, found[name])
    return figure


def _draw(axes: Axes, one: Roofline) -> None:
    low, high = _limits(one)
    highest = max(one.peaks_flops_per_s.values())
    axes.set_xscale("log")
    axes.set_yscale("log")
    operators = one.operators
    for place, stage in enumerate(dict.fromkeys(str(name) for name in operators["stage"])):
        rows = operators[operators["stage"] == stage]
        size = (LEAST_PT + MORE_PT * np.sqrt(floats(rows, "share_frac"))) ** 2
        axes.scatter(
            floats(rows, "intensity"), floats(rows, "flops_per_s"), s=size, label=stage,
            color=PALETTE[place % len(PALETTE)], marker=MARKERS[place % len(MARKERS)], linewidths=0.4,
            edgecolors="white", zorder=3,
        )  # fmt: skip
    roof: dict[str, Any] = {"color": "black", "linewidth": 1.0, "zorder": 2}
    axes.plot([low, one.ridge], [low * one.bandwidth_bytes_per_s, highest], **roof)
    for peak, style in zip(reversed(one.peaks_flops_per_s.values()), ("-", "--", ":"), strict=False):
        axes.plot([peak / one.bandwidth_bytes_per_s, high], [peak, peak], linestyle=style, **roof)
    lowest = min(float(one.flops_per_s.min()), low * one.bandwidth_bytes_per_s)
    axes.set_xlim(low, high)
    axes.set_ylim(lowest / 1.5, highest * 10**DECADES_ABOVE)
    axes.set_xlabel("arithmetic intensity (FLOP/byte)")
    axes.set_ylabel("reached (FLOP/s)")


def _limits(one: Roofline) -> tuple[float, float]:
    """Intensities that are drawn: behind the ridge there is room for the names of the roofs."""
    low, high = one.limits
    return low, max(high, ROOM_FOR_NAMES * one.ridge)


def _names(axes: Axes, one: Roofline) -> None:
    """Of the roofs, then of the operators that take longest."""
    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    low, high = _limits(one)
    for dtype, peak in one.peaks_flops_per_s.items():
        text = f"{dtype} {with_prefix(peak, 'FLOP/s')}"
        axes.annotate(text, (high, peak), (-2, 1.5), textcoords="offset points", ha="right", va="bottom", fontsize=6.5)
    start, end = axes.transData.transform([(low, low * one.bandwidth_bytes_per_s), (one.ridge, low)])
    top = axes.transData.transform((one.ridge, one.ridge * one.bandwidth_bytes_per_s))
    angle = float(np.degrees(np.arctan2(top[1] - start[1], end[0] - start[0])))
    middle = float(np.sqrt(low * one.ridge))
    axes.annotate(
        with_prefix(one.bandwidth_bytes_per_s, "B/s"), (middle, middle * one.bandwidth_bytes_per_s), (-1.5, 1.5),
        textcoords="offset points", rotation=angle, rotation_mode="anchor", ha="center", va="bottom", fontsize=6.5,
    )  # fmt: skip
    points = list(zip(one.intensity.tolist(), one.flops_per_s.tolist(), strict=True))
    operators = one.operators["operator"].astype(str).tolist()
    named = longest_apart(one, MOST_NAMED, NEAREST_NAMES)
    names = [(*points[place], operators[place].replace("_", " ")) for place in named]
    bandwidth, highest = one.bandwidth_bytes_per_s, max(one.peaks_flops_per_s.values())
    roofs = along(axes, [(low, low * bandwidth), (one.ridge, highest)])
    for peak in one.peaks_flops_per_s.values():
        roofs += along(axes, [(peak / bandwidth, peak), (high, peak)])
    place_names(axes, names, [*points, *roofs])
