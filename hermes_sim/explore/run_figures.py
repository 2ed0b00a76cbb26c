"""Figures of a table of runs (explore/run_table.py), whatever made it: a study, a sweep, a search.

Each point is the mean over the seeds of its runs that ended well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product, zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from hermes_sim.analysis.figures.heat import color_bar, fit, heat, plain_ticks
from hermes_sim.analysis.figures.labels import along, place_names
from hermes_sim.analysis.frames import FloatArray, floats
from hermes_sim.analysis.human import NOTHING
from hermes_sim.analysis.pareto import pareto_front
from hermes_sim.analysis.picture import MARKERS, PALETTE, Width, legend_below, picture, styled
from hermes_sim.core.errors import HermesError
from hermes_sim.core.words import did_you_mean
from hermes_sim.explore.run_table import DONE
from hermes_sim.explore.study.points import mean_over_seeds
from hermes_sim.scenario.axis import number_of
from hermes_sim.scenario.study_metrics import StudyMetric, metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT_IN: Final = 2.7
ROW_IN: Final = 0.26
AROUND_IN: Final = 0.85
LEAST_HEIGHT_IN: Final = 1.7
LONGEST_LINE: Final = 20
"""Letters of a name beside a field."""
WIDE: Final = 30.0
"""Values that differ by a larger factor are drawn along a logarithmic axis."""
MOST_SERIES: Final = len(PALETTE)
MOST_ROWS: Final = 24
MOST_COLUMNS: Final = 16
USUAL: Final = ("goodput_per_s", "output_tokens_per_s", "requests_per_s")
"""Metrics of a heat map, the first that the runs have."""
SHARE: Final = "slo_met_frac"
"""Of requests within the SLO; `slo_met_frac@TIER` where a study has tiers of objectives."""
TARGET: Final = 0.9


def axes_of(runs: pd.DataFrame) -> list[str]:
    """Names of the axes of a table of runs: its columns before the seed."""
    columns = [str(name) for name in runs.columns]
    if "seed" not in columns:
        raise HermesError("this is no table of runs: it has no column 'seed'")
    return columns[: columns.index("seed")]


@styled
def pareto(
    runs: pd.DataFrame,
    x: str = "cost_per_million_output_tokens_usd",
    y: str = "ttft_p99_s",
    *,
    series: str | None = None,
    log: Sequence[str] | None = None,
    width: Width = "column",
) -> Figure:
    """Two metrics of every point, and the line of those that no other beats in both.

    Points on the front are filled and named by the values of their other axes, as far as there is room. series: axis
    told apart by colour and marker, the first one with few values if not given. log: `x`, `y`, both or none; where
    values differ by more than WIDE if not given.
    Raises HermesError where no point has both metrics.
    """
    metrics = _metric(runs, x), _metric(runs, y)
    axes_names = axes_of(runs)
    series = _axis(runs, series, axes_names) if series is not None else _few_valued(runs, axes_names)
    points = _points(runs, axes_names).dropna(subset=[x, y])
    if points.empty:
        raise HermesError(f"no point of the runs has both {x} and {y}")
    across, up = floats(points, x) / metrics[0].per_unit, floats(points, y) / metrics[1].per_unit
    front = pareto_front(np.stack([across, up], axis=1), [one.better for one in metrics])
    figure = picture(width, HEIGHT_IN)
    axes: Axes = figure.subplots()
    for place, name in enumerate([""] if series is None else _values(runs, series)):
        own = np.ones(len(points), dtype=np.bool_) if series is None else (points[series] == name).to_numpy()
        style: dict[str, Any] = {"marker": MARKERS[place % len(MARKERS)], "s": 16.0, "linewidths": 0.7, "zorder": 3}
        color = PALETTE[place % len(PALETTE)]
        axes.scatter(across[own & ~front], up[own & ~front], facecolors="none", edgecolors=color, alpha=0.6, **style)
        label = None if series is None else name
        axes.scatter(across[own & front], up[own & front], color=color, label=label, **style)
    order = np.argsort(across[front], kind="stable")
    steps = "steps-post" if metrics[0].better == "lower" else "steps-pre"
    axes.plot(
        across[front][order], up[front][order], color="black", linewidth=0.8, drawstyle=steps, label="Pareto front"
    )
    if _is_wide(across) if log is None else "x" in log:
        axes.set_xscale("log")
    if _is_wide(up) if log is None else "y" in log:
        axes.set_yscale("log")
    axes.margins(0.08)
    if axes.get_xscale() == "log":
        plain_ticks(axes, "x")
    if axes.get_yscale() == "log":
        plain_ticks(axes, "y")
    axes.set_xlabel(f"{metrics[0].title}, {metrics[0].better} is better")
    axes.set_ylabel(f"{metrics[1].title}, {metrics[1].better} is better")
    legend_below(figure, columns=4, title=None if series is None else series.replace("_", " "))
    others = [name for name in axes_names if name != series]
    places = np.flatnonzero(front)[order].tolist()
    names = [", ".join(f"{name.replace('_', ' ')} {points[name].iloc[place]}" for name in others) for place in places]
    known = list(zip(across.tolist(), up.tolist(), strict=True))
    figure.draw_without_rendering()
    corners = [known[place] for place in places]
    between = [(x, v) if steps == "steps-post" else (u, y) for (u, v), (x, y) in pairwise(corners)]
    line = [point for pair in zip_longest(corners, between) for point in pair if point is not None]
    covered = [*known, *along(axes, line)]
    place_names(axes, [(*known[place], name) for place, name in zip(places, names, strict=True) if name], covered)
    return figure


@styled
def heat_map(
    runs: pd.DataFrame,
    metric: str | None = None,
    *,
    columns: str | None = None,
    rows: str | None = None,
    log: bool = False,
    width: Width = "column",
) -> Figure:
    """A metric over two axes, the mean over all others.

    metric: goodput, or without an SLO output tokens per second, if not given. columns, rows: the axes, the last and the
    first with several values. log: of the colours. Raises HermesError where there are not two axes, or no point has the
    metric.
    """
    metric = (
        next((name for name in USUAL if name in runs and runs[name].notna().any()), USUAL[0])
        if metric is None
        else metric
    )
    found = _metric(runs, metric)
    names = [name for name in axes_of(runs) if len(_values(runs, name)) > 1]
    across = _axis(runs, columns, names) if columns is not None else next((n for n in names[::-1] if n != rows), None)
    down = _axis(runs, rows, names) if rows is not None else next((name for name in names if name != across), None)
    if across is None or down is None or across == down:
        raise HermesError(f"a heat map needs two axes with several values; the runs have {_listed(names)}")
    column_names, row_names = _values(runs, across), _values(runs, down)
    means = _points(runs, axes_of(runs)).groupby([down, across], observed=True)[metric].mean()
    values = _field(means, row_names, column_names) / found.per_unit
    figure = _field_figure(width, column_names, len(row_names))
    axes: Axes = figure.subplots()
    labels, title = _numbers_alone(across, column_names)
    cells = heat(axes, values, labels, _wrapped(row_names), log=log)
    color_bar(cells, [axes], found.title)
    axes.set_xlabel(title)
    axes.set_ylabel(down.replace("_", " "))
    fit([axes])
    return figure


@styled
def slo_surface(
    runs: pd.DataFrame,
    rate: str | None = None,
    *,
    metric: str | None = None,
    target: float = TARGET,
    width: Width = "column",
) -> Figure:
    """Share of requests within the SLO over rate and configuration, with the line inside which the target is kept.

    rate: the axis of numbers along the bottom, the one named rate or else the first if not given. Of several other axes
    the first has a panel for each value; each combination of the rest is a row. metric: `slo_met_frac@TIER` of a
    study's tier. Raises HermesError where there is no such axis, or no attainment.
    """
    names = axes_of(runs)
    rate = _axis(runs, rate, names) if rate is not None else _rate_axis(runs, names)
    metric = metric if metric is not None else _attainment(runs)
    _metric(runs, metric)
    others = [name for name in names if name != rate and len(_values(runs, name)) > 1]
    facet, others = (others[0], others[1:]) if len(others) > 1 else (None, others)
    column_names = sorted(_values(runs, rate), key=lambda name: number_of(name) or 0.0)
    points = _points(runs, names)
    parts = {"": points} if facet is None else {
        name: points[points[facet]== name] for name in _values(runs, facet)
    }  # fmt: skip
    fields = {name: _attainments(part, rate, metric, others, runs, column_names) for name, part in parts.items()}
    num_rows = sum(len(rows) for rows, _ in fields.values())
    figure = _field_figure(width, column_names, num_rows, num_titles=len(fields) if facet is not None else 0)
    heights = [len(rows) for rows, _ in fields.values()]
    grid = list(figure.subplots(len(fields), 1, squeeze=False, sharex=True, height_ratios=heights).flat)
    labels, title = _numbers_alone(rate, column_names)
    for axes, (name, (rows, values)) in zip(grid, fields.items(), strict=True):
        cells = heat(axes, values, labels, _wrapped(rows), known=np.array([0.0, 100.0]), number="{:.0f}".format)
        _border(axes, values >= 100.0 * target, f"{target:.0%} of requests within the SLO")
        if facet is not None:
            axes.set_title(f"{facet.replace('_', ' ')}: {name}")
    color_bar(cells, grid, "requests within the SLO (%)")
    grid[-1].set_xlabel(title)
    figure.supylabel(", ".join(name.replace("_", " ") for name in others), fontsize="medium")
    legend_below(figure, columns=1)
    fit(grid)
    return figure


def _attainments(
    points: pd.DataFrame, rate: str, metric: str, others: Sequence[str], runs: pd.DataFrame, columns: Sequence[str]
) -> tuple[list[str], FloatArray]:
    """Combinations of the other axes that are there, and per cent of requests [num_combinations, num_rates]."""
    row_of = [", ".join(map(str, key)) or "all" for key in points[list(others)].itertuples(index=False, name=None)]
    there = set(row_of)
    combinations = (", ".join(one) or "all" for one in product(*(_values(runs, name) for name in others)))
    rows = [name for name in combinations if name in there]
    shares = points.assign(row=row_of).groupby(["row", rate], observed=True)[metric].mean()
    return rows, 100.0 * _field(shares, rows, columns)


def _border(axes: Axes, inside: np.ndarray[tuple[int, int], np.dtype[np.bool_]], label: str) -> None:
    """Around the cells that are inside, in two colours so that it is seen on any."""
    from matplotlib.collections import LineCollection

    padded = np.pad(inside, 1)
    sides = []
    for row, place in np.argwhere(padded[:, 1:] != padded[:, :-1]):
        sides.append([(place - 0.5, row - 1.5), (place - 0.5, row - 0.5)])
    for row, place in np.argwhere(padded[1:, :] != padded[:-1, :]):
        sides.append([(place - 1.5, row - 0.5), (place - 0.5, row - 0.5)])
    axes.add_collection(LineCollection(sides, colors="white", linewidths=3.0, capstyle="projecting"))
    axes.add_collection(LineCollection(sides, colors=PALETTE[1], linewidths=1.6, capstyle="projecting"))
    axes.plot([], [], color=PALETTE[1], linewidth=1.6, label=label)
    axes.margins(0.02)


def _field_figure(width: Width, columns: Sequence[str], num_rows: int, *, num_titles: int = 0) -> Figure:
    if num_rows > MOST_ROWS or len(columns) > MOST_COLUMNS:
        raise HermesError(
            f"{num_rows} x {len(columns)} cells have no room in a figure (at most {MOST_ROWS} x {MOST_COLUMNS}); "
            "name other axes, or choose some of the runs"
        )
    return picture(width, max(LEAST_HEIGHT_IN, AROUND_IN + ROW_IN * (num_rows + num_titles)))


def _is_wide(values: FloatArray) -> bool:
    return float(values.min()) > 0 and float(values.max()) > WIDE * float(values.min())


def _numbers_alone(axis: str, names: Sequence[str]) -> tuple[list[str], str]:
    """Values along an axis and its title: where all are numbers of one unit, the unit stands in the title."""
    title = axis.replace("_", " ")
    units = {name.partition(" ")[2] for name in names}
    if all(number_of(name) is not None for name in names) and len(units) == 1 and units != {""}:
        return [name.partition(" ")[0] for name in names], f"{title} ({units.pop()})"
    return [name.replace("_", " ") for name in names], title


def _wrapped(names: Sequence[str]) -> list[str]:
    return ["\n".join(wrap(name.replace("_", " "), LONGEST_LINE)) for name in names]


def _field(means: pd.Series, rows: Sequence[str], columns: Sequence[str]) -> FloatArray:
    """[num_rows, num_columns] of a series by row and column; NaN where there is none."""
    values = np.full((len(rows), len(columns)), np.nan)
    for key, value in means.to_dict().items():
        row, column = map(str, key)  # type: ignore[call-overload]
        values[rows.index(row), columns.index(column)] = value
    return values


def _points(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    done = runs[runs["status"] == DONE]
    if done.empty:
        raise HermesError("none of the runs has ended well: there is nothing to draw")
    points = mean_over_seeds(done, tuple(names)).frame
    return points.assign(**{name: _texts(points[name]) for name in names})


def _texts(column: pd.Series) -> pd.Series:
    """Values of an axis as figures call them; NOTHING where a point does not have the axis."""
    if pd.api.types.is_float_dtype(column.dtype):
        return column.map(lambda number: f"{number:g}", na_action="ignore").fillna(NOTHING).astype("str")
    return column.astype("str").where(column.notna(), NOTHING)


def _values(runs: pd.DataFrame, axis: str) -> list[str]:
    """Those that are there, in the order of the axis."""
    column = runs[axis]
    there = dict.fromkeys(_texts(column))
    if isinstance(column.dtype, pd.CategoricalDtype):
        order = [str(value) for value in column.cat.categories]
        return [name for name in (*order, NOTHING) if name in there]
    return sorted(there, key=lambda name: (number_of(name) is None, number_of(name) or 0.0, name))


def _axis(runs: pd.DataFrame, name: str, names: Sequence[str]) -> str:
    if name not in axes_of(runs):
        raise HermesError(f"{name!r} is not an axis of the runs ({_listed(axes_of(runs))}).{did_you_mean(name, names)}")
    return name


def _few_valued(runs: pd.DataFrame, names: Sequence[str]) -> str | None:
    return next((name for name in names if 1 < len(_values(runs, name)) <= MOST_SERIES), None)


def _rate_axis(runs: pd.DataFrame, names: Sequence[str]) -> str:
    numeric = [
        name for name in names
        if len(_values(runs, name)) > 1 and all(number_of(value) is not None for value in _values(runs, name))
    ]  # fmt: skip
    if not numeric:
        raise HermesError(f"an SLO surface needs an axis of numbers; the runs have {_listed(names)}")
    return next((name for name in numeric if "rate" in name), numeric[0])


def _attainment(runs: pd.DataFrame) -> str:
    """The run's own share within the SLO, or that of the first tier that has one."""
    columns = [str(name) for name in runs.columns if str(name) == SHARE or str(name).startswith(f"{SHARE}@")]
    found = next((name for name in columns if runs[name].notna().any()), None)
    if found is None:
        raise HermesError("the runs have no SLO: no request was held against one")
    return found


def _metric(runs: pd.DataFrame, name: str) -> StudyMetric:
    base, _, tier = name.partition("@")
    metric = metric_of(base)
    if metric is None or name not in runs:
        known = [str(column) for column in runs.columns if metric_of(str(column).partition("@")[0]) is not None]
        raise HermesError(f"{name!r} is not a metric of the runs.{did_you_mean(name, known)}")
    if not runs[name].notna().any():
        raise HermesError(f"none of the runs has a value of {name}")
    return StudyMetric(f"{metric.label}, {tier}", metric.unit, metric.better, metric.per_unit) if tier else metric


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "no axis"
