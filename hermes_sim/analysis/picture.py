"""An empty figure with its panels, as every picture of a run begins."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    "queue": "#bdbdbd",
    "transfer": "#8c6bb1",
    "compute": "#1f77b4",
    "memory": "#2ca02c",
    "network": "#ff7f0e",
    "host": "#d62728",
}


def panels(num: int, *, vertical: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure outside pyplot's global state, shown by notebooks as a picture."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    size = (7.0, 1.6 * num + 0.8) if vertical else (3.6 * num + 0.8, 3.2)
    figure = Picture(figsize=size, layout="constrained", dpi=120)
    shape = (num, 1) if vertical else (1, num)
    grid = figure.subplots(*shape, squeeze=False, sharex=vertical, sharey=not vertical)
    return figure, list(grid.flat)
