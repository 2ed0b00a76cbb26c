"""`hermes-sim figures RUN`: figures for papers, of a saved run or of a table of runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes_sim.core.errors import HermesError
from hermes_sim.core.words import did_you_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hermes_sim.analysis.picture import Width

Draw = Callable[[], "Figure"]
Kinds = Mapping[str, Mapping[str, Draw]]
"""Kind of figure -> name of a file -> what draws it."""


class Format(StrEnum):
    """Of a figure's file."""

    PDF = "pdf"
    SVG = "svg"
    PNG = "png"


def figures(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run, or of a sweep or study.", metavar="RUN")],
    formats: Annotated[list[Format] | None, typer.Option("--format", help="May be repeated. [default: pdf]")] = None,
    width: Annotated[str, typer.Option(help="column (3.33 in), page (7 in), or inches.", metavar="WIDTH")] = "column",
    only: Annotated[
        str | None,
        typer.Option(
            help="Of a run: cdf, timeline, engine_timeline, stages, engines, roofline. "
            "Of a sweep or study: pareto, heat_map, slo_surface.",
            metavar="KIND,...",
        ),
    ] = None,
    x: Annotated[str | None, typer.Option(help="Metric along the Pareto front's bottom.", metavar="METRIC")] = None,
    y: Annotated[str | None, typer.Option(help="Metric along its left side.", metavar="METRIC")] = None,
    metric: Annotated[str | None, typer.Option(help="Of the heat map.", metavar="METRIC")] = None,
    columns: Annotated[str | None, typer.Option(help="Axis along the heat map's bottom.", metavar="AXIS")] = None,
    rows: Annotated[str | None, typer.Option(help="Axis along its left side.", metavar="AXIS")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. [default: RUN/figures]", metavar="FOLDER")] = None,
) -> None:
    """Draw figures for papers: fixed size, embedded fonts, equal files of equal runs.

    hermes-sim figures runs/rag-1 --format pdf --only cdf,roofline
    """
    from hermes_sim.analysis.run_folder import FIGURES_FOLDER
    from hermes_sim.explore.run_table import RUNS_FILE

    size = _width(width)
    axes = {"x": x, "y": y, "metric": metric, "columns": columns, "rows": rows}
    given = {name: value for name, value in axes.items() if value is not None}
    if (run / RUNS_FILE).is_file():
        kinds = _of_table(run / RUNS_FILE, size, given)
    elif given:
        raise HermesError(f"--{next(iter(given))} is for a table of runs, and {run} holds none ({RUNS_FILE})")
    else:
        kinds = _of_run(run, size)
    folder = run / FIGURES_FOLDER if out is None else out
    suffixes = [str(one) for one in dict.fromkeys(formats or [Format.PDF])]
    names = _save(_chosen(only, kinds), folder, suffixes, strict=only is not None)
    typer.echo(f"wrote {folder} ({', '.join(names)})")


def _of_run(run: Path, width: Width) -> Kinds:
    from hermes_sim.analysis import figures as draw
    from hermes_sim.analysis.results import Results
    from hermes_sim.analysis.roofline import rooflines

    results = Results.load(run)
    names = ("cdf", "timeline", "engine_timeline", "stages", "engines")
    kinds = {name: {name: partial(getattr(draw, name), results, width=width)} for name in names}
    engines = [one.name for one in rooflines(results)]
    return {**kinds, "roofline": {
        f"roofline-{name}": partial(draw.roofline, results, name, width=width) for name in engines
    }}  # fmt: skip


def _of_table(table: Path, width: Width, given: Mapping[str, str]) -> Kinds:
    from hermes_sim.explore.run_figures import heat_map, pareto, slo_surface
    from hermes_sim.explore.run_table import read_table

    runs = read_table(table)
    of_front: dict[str, Any] = {name: given[name] for name in ("x", "y") if name in given}
    of_map: dict[str, Any] = {name: given[name] for name in ("metric", "columns", "rows") if name in given}
    of_surface: dict[str, Any] = {"rate": given["columns"]} if "columns" in given else {}
    return {
        "pareto": {"pareto": partial(pareto, runs, width=width, **of_front)},
        "heat_map": {"heat_map": partial(heat_map, runs, width=width, **of_map)},
        "slo_surface": {"slo_surface": partial(slo_surface, runs, width=width, **of_surface)},
    }


def _chosen(only: str | None, kinds: Kinds) -> Kinds:
    if only is None:
        return kinds
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in kinds:
            near = did_you_mean(name, list(kinds))
            raise HermesError(f"--only {name}: no figure of this folder ({', '.join(kinds)}).{near}")
    return {name: kinds[name] for name in names}


def _save(kinds: Kinds, folder: Path, suffixes: Sequence[str], *, strict: bool) -> list[str]:
    """Names of the files. strict: a figure that cannot be drawn is an error, else it is left out, and told."""
    from hermes_sim.analysis.picture import save_figure

    drawn: dict[str, Figure] = {}
    for kind, files in kinds.items():
        try:
            if not files:
                raise HermesError("no engine has operators with FLOPs and bytes")
            drawn |= {name: draw() for name, draw in files.items()}
        except HermesError as error:
            if strict:
                raise HermesError(f"{kind}: {error}") from None
            typer.echo(f"left out {kind}: {error}", err=True)
    paths = [folder / f"{name}.{suffix}" for name in drawn for suffix in suffixes]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            save_figure(drawn[path.stem], path)
    except OSError as error:
        raise HermesError(f"cannot write {folder}: {error.strerror or error}") from error
    return [path.name for path in paths]


def _width(text: str) -> Width:
    """A name, or inches that a page has."""
    match text:
        case "column" | "page":
            return text
    try:
        inches = float(text)
    except ValueError:
        inches = 0.0
    if not 1.0 <= inches <= 40.0:
        raise HermesError(f"--width {text}: needs column, page, or inches between 1 and 40")
    return inches
