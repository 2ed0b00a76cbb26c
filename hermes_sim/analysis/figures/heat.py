"""A field of coloured cells with their numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from hermes_sim.analysis.frames import FloatArray
from hermes_sim.analysis.human import digits, with_prefix
from hermes_sim.analysis.picture import COLOR_MAP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MOST_LABELLED: Final = 300.0
"""A logarithmic axis over a larger factor has its powers of ten labelled alone."""
NUMBER_PT: Final = 6.5
LEAST_PT: Final = 4.5


def heat(
    axes: Axes, values: FloatArray, columns: Sequence[str], rows: Sequence[str], *,
    known: FloatArray | None = None, log: bool = False, number: Callable[[float], str] | None = None,
) -> AxesImage:  # fmt: skip
    """values: [num_rows, num_columns], the first row at the bottom; NaN stays white.

    known: numbers that the scale of colours spans, if not these alone. number: how one is written, else `short`.
    """
    from matplotlib.colors import LogNorm, Normalize

    spanned = values if known is None else known
    spanned = spanned[np.isfinite(spanned)]
    log = log and len(spanned) > 0 and float(spanned.min()) > 0
    norm = (LogNorm if log else Normalize)(vmin=spanned.min(), vmax=spanned.max()) if len(spanned) else Normalize()
    cells = axes.imshow(values, cmap=COLOR_MAP, norm=norm, aspect="auto", origin="lower")
    share = np.ma.filled(np.ma.asarray(norm(np.ma.masked_invalid(values))), 0.5)
    dark = share < 0.5
    for row, place in np.ndindex(*values.shape):
        if np.isfinite(values[row, place]):
            color = "white" if dark[row, place] else "black"
            text = (number or short)(float(values[row, place]))
            axes.annotate(text, (place, row), color=color, fontsize=NUMBER_PT, ha="center", va="center")
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return cells


def color_bar(cells: AxesImage, beside: Sequence[Axes], title: str) -> None:
    """The scale of colours of one field or of several with the same."""
    from matplotlib.colors import LogNorm

    figure = beside[0].get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(cells, ax=list(beside), pad=0.02, fraction=0.05, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label(title)
    if isinstance(cells.norm, LogNorm):
        plain_ticks(bar.ax)


def fit(fields: Sequence[Axes]) -> None:
    """What is written fits: numbers into their cells, smaller or not at all; names along the bottom, else aslant.

    Call it when all is drawn, for all fields of a figure.
    """
    figure = fields[0].get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    ratio = min(map(_room, fields))
    for axes in fields:
        for text in list(axes.texts):
            if ratio * NUMBER_PT < LEAST_PT:
                text.remove()
            elif ratio < 1.0:
                text.set_fontsize(ratio * NUMBER_PT)
        names = axes.get_xticklabels()
        extents = [name.get_window_extent() for name in names]
        if any(one.x1 + 2.0 > other.x0 for one, other in pairwise(extents)):
            for name in names:
                name.set(rotation=35, horizontalalignment="right", rotation_mode="anchor")


def _room(axes: Axes) -> float:
    """By how much the numbers of a field could grow until the first fills its cell."""
    corners = axes.transData.transform([(0.0, 0.0), (1.0, 1.0)])
    room = corners[1] - corners[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    return float(min((min(room[0] / box.width / 1.1, room[1] / box.height) for box in boxes), default=1.0))


def short(value: float) -> str:
    """Two digits, thousands as k: 0.84, 97, 1.4k."""
    if abs(value) < 1000:
        return digits(value, 2)
    return with_prefix(value, "").replace(" ", "") if abs(value) >= 1e4 else f"{value / 1e3:.1f}k"


def plain_ticks(axes: Axes, along: Literal["x", "y"] = "y") -> None:
    """0.2 instead of a power of ten, along a logarithmic axis; between the powers 2 and 5 where these are few."""
    from matplotlib.ticker import FuncFormatter

    low, high = axes.get_xlim() if along == "x" else axes.get_ylim()
    few = high < MOST_LABELLED * low

    def between(value: float, _: int | None) -> str:
        return f"{value:,g}" if few and f"{value:e}"[0] in "25" else ""

    axis = axes.xaxis if along == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(FuncFormatter(between))
