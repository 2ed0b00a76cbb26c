"""How every picture looks: one style, one table of colours, one way to a file.

Colours are Okabe and Ito's (Color Universal Design), told apart with any colour vision; hatches, dashes and markers
tell the same things apart without colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar

from hermes_sim.core.errors import HermesError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE_FILE: Final = "paper.mplstyle"

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800", "#8c8c8c")
"""The yellow is darkened and black left out: pages have a dark theme too."""
LIMIT_COLOR: Final = "#d55e00"
"""Of what an SLO allows."""
PART_COLORS: Final = {
    "queue": "#9a9a9a",
    "preempted": "#6b6b6b",
    "transfer": "#cc79a7",
    "compute": "#0072b2",
    "memory": "#009e73",
    "network": "#e69f00",
    "host": "#d55e00",
}
PART_PATTERNS: Final = {
    "queue": "/",
    "preempted": "\\",
    "transfer": ".",
    "compute": "",
    "memory": "x",
    "network": "-",
    "host": "+",
}
"""A second channel beside the colour."""
DENSITY: Final = 4
"""Of hatches: how often a pattern is repeated."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
LINE_STYLES: Final = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
"""So that a line is seen beneath another."""
LINE_PT: Final = 1.2
COLOR_MAP: Final = "cividis"

Width = Literal["column", "page"] | float
WIDTHS_IN: Final[dict[str, float]] = {"column": 3.33, "page": 7.0}
"""Of one column and of both, in the two-column styles of ACM and IEEE."""

LEGEND_ROW_IN: Final = 0.16
POINTS_PER_IN: Final = 72.0
LETTER_PT: Final = 4.0
"""Mean width of a letter of a legend."""
HANDLE_PT: Final = 30.0
"""Of its line or patch, with the space around."""
AROUND_IN: Final = 0.55
"""Height of the axis below and of a legend of one row."""

FIXED_METADATA: Final[dict[str, dict[str, Any]]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
"""By format: equal runs give equal files."""

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """What the function draws has this style, whatever the caller's settings are; those are left as they were."""

    @wraps(draw)
    def in_style(*args: Arguments.args, **keys: Arguments.kwargs) -> Drawn:
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_style())
            return draw(*args, **keys)

    return in_style


@cache
def _style() -> Any:
    import matplotlib as mpl

    with as_file(files("hermes_sim.analysis") / STYLE_FILE) as path:
        return mpl.rc_params_from_file(path, use_default_template=False)


def picture(width: Width, height_in: float) -> Figure:
    """An empty figure of a fixed size, outside pyplot's global state; notebooks show it, `savefig` writes it so."""
    return _picture_class()(figsize=(width_in(width), height_in))


def panels(
    width: Width, height_in: float, *, rows: int = 1, columns: int = 1, share_x: bool = True, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with its panels, row by row, each so high; axis and legend below have room of their own."""
    figure = picture(width, height_in * rows + AROUND_IN)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    return figure, list(grid.flat)


def width_in(width: Width) -> float:
    """Inches. Raises HermesError for a name that is none."""
    if isinstance(width, str):
        if width not in WIDTHS_IN:
            raise HermesError(f"width {width!r}: needs {' or '.join(WIDTHS_IN)}, or inches")
        return WIDTHS_IN[width]
    return float(width)


@cache
def _picture_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class Picture(Figure):
        @styled
        def savefig(self, fname: Any, **keys: Any) -> None:
            kind = keys.get("format") or Path(str(fname)).suffix.removeprefix(".")
            keys.setdefault("metadata", FIXED_METADATA.get(kind))
            super().savefig(fname, **keys)

        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png", dpi="figure")
            return buffer.getvalue()

    return Picture


def save_figure(drawn: Figure, path: Path, *, dpi: float | None = None) -> None:
    """PDF, PNG or SVG by its suffix, whole or not at all. dpi: of a PNG, 300 if not given. Raises OSError."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        drawn.savefig(partial, format=path.suffix.removeprefix("."), dpi=dpi)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def legend_below(figure: Figure, *, columns: int, title: str | None = None, order: Sequence[str] | None = None) -> None:
    """One legend for all panels, under them; a name that several panels have stands in it once.

    columns: the most side by side, as far as the figure is wide enough; rows are of about equal length.
    order: of the names, as they are found if not given. The figure grows by the rows behind the first.
    """
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if order is not None:
        found = {name: found[name] for name in order if name in found}
    if found:
        room = int(figure.get_figwidth() * POINTS_PER_IN / (HANDLE_PT + LETTER_PT * max(map(len, found))))
        num_rows = -(-len(found) // max(1, min(columns, room)))
        num_columns = -(-len(found) // num_rows)
        names = [name for first in range(num_columns) for name in list(found)[first::num_columns]]  # row by row
        handles = [found[name] for name in names]
        more_rows = num_rows - 1 + (title is not None)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW_IN * more_rows)
        figure.legend(handles, names, loc="outside lower center", ncols=num_columns, title=title)


def line_style(place: int) -> dict[str, Any]:
    """Colour and dashes of the line at this place among several."""
    color, dashes = PALETTE[place % len(PALETTE)], LINE_STYLES[place % len(LINE_STYLES)]
    return {"color": color, "linestyle": dashes, "linewidth": LINE_PT}


def part_style(part: str) -> dict[str, Any]:
    """Fill of a bar or an area: a colour, and white lines over it."""
    hatch = PART_PATTERNS.get(part, "") * DENSITY
    return {"facecolor": PART_COLORS.get(part, PALETTE[-1]), "edgecolor": "white", "hatch": hatch, "linewidth": 0.0}
