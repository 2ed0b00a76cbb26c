"""Names beside points, where they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

DISTANCES_PT: Final = (4.0, 7.0)
DIRECTIONS: Final = ((0, -1), (0, 1), (1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1))
ALIGNMENT: Final = {-1: "right", 0: "center", 1: "left"}
VERTICAL: Final = {-1: "top", 0: "center", 1: "bottom"}
STEP_PX: Final = 5.0
MARKER_PT: Final = 3.0
"""Half of what a marker covers."""


def place_names(axes: Axes, names: Sequence[tuple[float, float, str]], points: Sequence[tuple[float, float]]) -> None:
    """Writes each (x, y, name), the first ones first, beside its point: not over a point, another text, or the edge.

    A name that has room nowhere is left out. Call it when all else is drawn: limits and sizes are taken as they are.
    """
    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    covered: list[Bbox] = [text.get_window_extent() for text in axes.texts]
    covered += [_around(axes, x, y) for x, y in points]
    for x, y, name in names:
        for distance in DISTANCES_PT:
            if any(_fits(axes, (x, y), name, distance, way, inside, covered) for way in DIRECTIONS):
                break


def along(axes: Axes, line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a line of straight pieces, so close that no name passes between them; places as they are drawn now."""
    drawn = axes.transData.transform(list(line))
    points: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in pairwise(drawn.tolist()):
        number = 2 + int(max(abs(x1 - x0), abs(y1 - y0)) / STEP_PX)
        steps = [place / (number - 1) for place in range(number)]
        places = [(x0 + (x1 - x0) * step, y0 + (y1 - y0) * step) for step in steps]
        points += map(tuple, axes.transData.inverted().transform(places).tolist())
    return points


def _fits(
    axes: Axes, point: tuple[float, float], name: str, distance: float, way: tuple[int, int], inside: Bbox,
    covered: list[Bbox],
) -> bool:  # fmt: skip
    """Whether the name has room there; if so it is written."""
    text = axes.annotate(
        name, point, xytext=(way[0] * distance, way[1] * distance), textcoords="offset points", fontsize=6.5,
        ha=ALIGNMENT[way[0]], va=VERTICAL[way[1]],
    )  # fmt: skip
    box = text.get_window_extent()
    held = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    if held and not any(box.overlaps(other) for other in covered):
        covered.append(box)
        return True
    text.remove()
    return False


def _around(axes: Axes, x: float, y: float) -> Bbox:
    """What the marker at a point covers."""
    from matplotlib.transforms import Bbox

    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    half = MARKER_PT * figure.dpi / 72.0
    across, up = axes.transData.transform((x, y))
    return Bbox([[across - half, up - half], [across + half, up + half]])
