"""Plots of a validation as SVG: predicted against measured, errors by operator and device."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS: Final = 1500
"""Of one panel: every k-th row."""
COLUMNS: Final = 4
COLORS: Final = {"fitted": "#9aa7b5", "held_out": "#1f6feb", "unseen_device": "#d1651a"}


def scatter(scored: pd.DataFrame, panels: str, unit: str = "s") -> str:
    """SVG: one panel a value of column `panels`, predicted against measured on logarithmic axes."""
    names = sorted(scored[panels].astype(str).unique())
    figure, axes = _grid(len(names))
    for name, axis in zip(names, axes, strict=True):
        rows = scored[scored[panels].astype(str) == name]
        for side, color in COLORS.items():
            part = rows[rows["side"] == side]
            part = part.iloc[:: max(len(part) // MOST_POINTS, 1)]
            if len(part):
                axis.scatter(part["measured"], part["predicted"], s=2, c=color, linewidths=0, rasterized=False)
        least, most = float(rows["measured"].min()), float(rows["measured"].max())
        axis.plot([least, most], [least, most], color="black", linewidth=0.6)
        axis.set(xscale="log", yscale="log")
        axis.set_title(name.replace("_", " "), fontsize=8)
        axis.tick_params(labelsize=6)
    figure.supxlabel(f"measured [{unit}]", fontsize=8)
    figure.supylabel(f"predicted [{unit}]", fontsize=8)
    return _svg(figure)


def error_bars(records: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    """SVG: mean absolute error of each record as a bar, coloured by side."""
    figure, (axis,) = _grid(1, (8.0, 0.6 + 0.16 * max(len(records), 1)))
    labels = [" ".join(str(record[key]) for key in keys) for record in records]
    places = np.arange(len(records))
    colors = [COLORS[str(record["side"])] for record in records]
    axis.barh(places, [100.0 * record["mean_frac"] for record in records], color=colors, height=0.7)
    axis.set_yticks(places, labels, fontsize=6)
    axis.invert_yaxis()
    axis.set_xscale("symlog", linthresh=10.0)
    axis.set_xlabel("mean absolute error [%]", fontsize=8)
    axis.tick_params(axis="x", labelsize=6)
    axis.grid(axis="x", linewidth=0.3)
    return _svg(figure)


def _grid(num_panels: int, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(num_panels, 1))
    rows = -(-max(num_panels, 1) // columns)
    figure = Figure(figsize=size or (2.4 * columns, 2.2 * rows + 0.3), layout="constrained")
    found = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in found[num_panels:]:
        axis.set_axis_off()
    return figure, found[:num_panels]


def _svg(figure: Figure) -> str:
    """The same bytes for the same figure: no date, fixed ids."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "hermes-sim", "svg.fonttype": "none", "font.family": "sans-serif"}):
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
