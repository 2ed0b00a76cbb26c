"""Plots of a validation as SVG: predicted against measured, one small picture a kind of number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS: Final = {"fitted": "#8496a9", "held_out": "#1f6feb", "unseen_device": "#d1651a"}
SIDE_WORDS: Final = {"fitted": "fitted", "held_out": "kept out", "unseen_device": "device not fitted"}
INK: Final = "#000000"
"""Drawn with this, and then in the text's colour of the page."""
SIZE: Final = 2.5
FEW: Final = 500
FEW_SIZE: Final = 7.0
"""Of a point, in square points, and where there are few of them."""

Points = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Side -> measured, predicted."""


def scatter(title: str, points: Points) -> str:
    """SVG of one picture: predicted against measured on logarithmic axes, with the line where they are the same."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5, 2.4), layout="constrained")
    axis = figure.subplots()
    measured = [value for values, _ in points.values() for value in values]
    axis.plot([min(measured), max(measured)], [min(measured), max(measured)], color=INK, linewidth=0.6)
    for side, color in COLORS.items():
        if side in points:
            axis.scatter(*points[side], s=FEW_SIZE if len(measured) < FEW else SIZE, c=color, linewidths=0)
    axis.set(xscale="log", yscale="log")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("measured", fontsize=8)
    axis.set_ylabel("predicted", fontsize=8)
    axis.tick_params(labelsize=7)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """The same bytes for the same figure: no date, fixed ids; no background, ink in the colour of the text around."""
    import matplotlib as mpl

    figure.patch.set_alpha(0.0)
    for axis in figure.axes:
        axis.patch.set_alpha(0.0)
    with mpl.rc_context({"svg.hashsalt": "hermes-sim", "svg.fonttype": "none", "font.family": "sans-serif"}):
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    return svg.replace(INK, "currentColor")
